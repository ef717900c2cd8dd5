"""A stand-in for Google Cloud Storage: one bucket, in memory, at a port of this machine.

It answers what gcsfs, TensorStore and google-cloud-storage ask of the JSON API when a run is
trained, evaluated and sampled from, with generations and their preconditions, and lists in small
pages. Whatever else is asked is noted in `unknown`, and refused.
"""

import itertools
import json
import re
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NoReturn, Self
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 3
"""Entries of a list; Google's own pages have 1000, but it may always return fewer."""


@dataclass(frozen=True)
class Stored:
    """An object of the bucket."""

    content: bytes
    generation: int


class FakeBucket(ThreadingHTTPServer):
    """The server, within a `with`; its clients need `environment`.

    Attributes:
        name: Of the bucket.
        objects: What it holds, by name.
        refusal: A status with which everything is answered, such as 403; None for none.
        objects_only: Whether its metadata may not be read, as for the role of an object's user.
        before: Called with "POST" and the name of an object before it is written, with "GET"
            before it is read, with "DELETE" before it is deleted; a ConnectionError that it raises
            takes the place of all this and of an answer.
        unknown: Requests that it does not understand.
    """

    daemon_threads = True
    request_queue_size = 100

    def __init__(self, name: str = "bucket"):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name = name
        self.objects: dict[str, Stored] = {}
        self.refusal: int | None = None
        self.objects_only = False
        self.before: Callable[[str, str], object] | None = None
        self.unknown: list[str] = []
        self.lock = threading.RLock()
        self.uploads: dict[str, tuple[str, bytearray]] = {}
        self._generations = itertools.count(1_700_000_000_000_000)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that lead the libraries here, and keep them from asking for credentials."""
        url = f"http://127.0.0.1:{self.server_port}"
        return {
            "STORAGE_EMULATOR_HOST": url,
            "TENSORSTORE_GCS_HTTP_URL": url,
            "FSSPEC_GCS_TOKEN": "anon",
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": "test",  # TensorStore's.
            # A question about the kind of the bucket by gRPC, which goes to Google itself.
            "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
        }

    def __enter__(self) -> Self:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Keeps quiet of a client that has hung up: gcsfs asks two ways, and takes one answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self.server_close()

    def announce(self, method: str, name: str) -> None:
        """Calls `before`."""
        if self.before:
            self.before(method, name)

    def write(self, name: str, content: bytes) -> Stored:
        """Stores an object."""
        self.announce("POST", name)
        with self.lock:
            self.objects[name] = Stored(content, next(self._generations))
            return self.objects[name]


class _Answer(Exception):
    """Ends a request."""

    def __init__(self, status: int, body: Any = None, **headers: object):
        self.status = status
        if isinstance(body, str):
            body = {"error": {"code": status, "message": body}}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.headers = headers


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeBucket

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        url = urlsplit(self.path)
        self.query = {key: values[0] for key, values in parse_qs(url.query).items()}
        try:
            if self.server.refusal:
                raise _Answer(self.server.refusal, "It does not have the right to do this.")
            route = re.fullmatch(
                r"(/upload|/download)?/storage/v1/b/([^/]+)(/o(?:/.*)?)?", url.path
            )
            if not route:
                self._unknown()
            if unquote(route[2]) != self.server.name:
                raise _Answer(404, "The specified bucket does not exist.")
            with self.server.lock:
                self._route(route[1] or "", [unquote(part) for part in (route[3] or "").split("/")])
        except _Answer as answer:
            self._send(answer)

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _route(self, kind: str, parts: list[str]) -> NoReturn:
        match self.command, kind, parts[1:]:
            case "GET", "", []:
                if self.server.objects_only:
                    raise _Answer(403, "no storage.buckets.get")
                raise _Answer(200, {"kind": "storage#bucket", "name": self.server.name})
            case "GET", "", ["o"]:
                self._list()
            case "POST", "/upload", ["o"]:
                self._upload()
            case "GET", ("" | "/download"), ["o", name]:
                self._read(name)
            case "DELETE", "", ["o", name]:
                self._check(name)
                self._existing(name)
                self.server.announce("DELETE", name)
                del self.server.objects[name]
                raise _Answer(204)
            case "POST", "", ["o", name, "moveTo", "o", target]:
                raise self._written(target, self._existing(name).content, without=name)
        self._unknown()

    def _list(self) -> NoReturn:
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        found: dict[str, bool] = {}  # Name of an object or a prefix, in order: whether a prefix.
        for name in sorted(self.server.objects):
            if not name.startswith(prefix) or name < self.query.get("startOffset", ""):
                continue
            if "endOffset" in self.query and name >= self.query["endOffset"]:
                continue
            head, divided, _ = name[len(prefix) :].partition(delimiter or "\0")
            found[prefix + head + divided] = bool(divided)
        left = [name for name in found if name > self.query.get("pageToken", "")]
        page = left[: min(PAGE, int(self.query.get("maxResults", PAGE)))]
        listing = {
            "kind": "storage#objects",
            "items": [self._metadata(name) for name in page if not found[name]],
            "prefixes": [name for name in page if found[name]],
        }
        raise _Answer(200, listing | ({"nextPageToken": page[-1]} if page != left else {}))

    def _upload(self) -> NoReturn:
        name = self.query.get("name", "")
        match self.query.get("uploadType"), self.query.get("upload_id"):
            case "media", _:
                raise self._written(name, self.body)
            case "multipart", _:
                line = "--" + self.headers["Content-Type"].split("boundary=")[1].strip('"')
                _, metadata, rest = self.body.split(line.encode(), 2)
                content = rest.rsplit(line.encode(), 1)[0]
                name = json.loads(metadata.split(b"\n\n", 1)[1])["name"]
                raise self._written(name, content.split(b"\n\n", 1)[1].removesuffix(b"\n"))
            case "resumable", None:
                number = str(len(self.server.uploads))
                self.server.uploads[number] = name, bytearray()
                url = f"http://{self.headers['Host']}{urlsplit(self.path).path}"
                raise _Answer(200, Location=f"{url}?uploadType=resumable&upload_id={number}")
            case "resumable", str(number):
                name, received = self.server.uploads[number]
                received += self.body
                if self.headers["Content-Range"].endswith("/*"):
                    raise _Answer(308, Range=f"bytes=0-{len(received) - 1}")
                raise self._written(name, bytes(received))
        self._unknown()

    def _read(self, name: str) -> NoReturn:
        self._check(name)
        stored = self._existing(name)
        self.server.announce("GET", name)
        if self.command == "GET" and self.query.get("alt") != "media":
            raise _Answer(200, self._metadata(name))
        headers = {"x-goog-generation": stored.generation, "x-goog-metageneration": 1}
        size = len(stored.content)
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            raise _Answer(200, stored.content, **headers)
        if not wanted[1]:
            start, end = max(size - int(wanted[2]), 0), size
        else:
            start, end = int(wanted[1]), min(int(wanted[2] or size) + 1, size)
        if start >= size:
            raise _Answer(416, "The requested range is not satisfiable.")
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"  # type: ignore[assignment]
        raise _Answer(206, stored.content[start:end], **headers)

    def _written(self, name: str, content: bytes, *, without: str | None = None) -> _Answer:
        self._check(name)
        self.server.write(name, content)
        if without is not None:
            del self.server.objects[without]
        return _Answer(200, self._metadata(name))

    def _existing(self, name: str) -> Stored:
        if name not in self.server.objects:
            raise _Answer(404, f"No such object: {self.server.name}/{name}")
        return self.server.objects[name]

    def _check(self, name: str) -> None:
        """Answers a request whose preconditions do not hold; no object has generation 0."""
        stored = self.server.objects.get(name)
        generation = str(stored.generation if stored else 0)
        if self.query.get("ifGenerationMatch", generation) != generation:
            raise _Answer(412, "At least one of the pre-conditions you specified did not hold.")
        if self.query.get("ifGenerationNotMatch") == generation:
            raise _Answer(304 if self.command == "GET" else 412, b"")

    def _metadata(self, name: str) -> dict[str, str]:
        stored = self.server.objects[name]
        return {
            "kind": "storage#object",
            "name": name,
            "bucket": self.server.name,
            "generation": str(stored.generation),
            "metageneration": "1",
            "size": str(len(stored.content)),
            "updated": "2026-01-01T00:00:00.000000Z",
        }

    def _unknown(self) -> NoReturn:
        self.server.unknown.append(f"{self.command} {self.path}")
        raise _Answer(400, f"The stand-in has no answer to {self.command} {self.path}.")

    def _send(self, answer: _Answer) -> None:
        empty = answer.status in (204, 304)
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, str(value))
        if not empty:
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if not empty:
            self.wfile.write(answer.body)
