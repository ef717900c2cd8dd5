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
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

PAGE = 3
"""Entries of a list; Google's own pages have 1000, but it may always return fewer."""


class Stored(NamedTuple):
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
    def environment(self):
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

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()

    def handle_error(self, request, client_address):
        """Keeps quiet of a client that has hung up: gcsfs asks two ways, and takes one answer."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def announce(self, method, name):
        """Calls `before`."""
        if self.before:
            self.before(method, name)

    def write(self, name, content):
        """Stores an object."""
        self.announce("POST", name)
        with self.lock:
            self.objects[name] = Stored(content, next(self._generations))


class _Answer(Exception):
    """What a request is answered with; returned, or raised to end it early."""

    def __init__(self, status: int, body: Any = b"", **headers: object):
        self.status, self.headers = status, headers
        if isinstance(body, str):
            body = {"error": {"code": status, "message": body}}
        self.body = body if isinstance(body, bytes) else json.dumps(body).encode()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FakeBucket

    def log_message(self, format, *args):
        pass

    def _handle(self):
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            with self.server.lock:
                answer = self._route()
        except _Answer as early:
            answer = early
        self.send_response(answer.status)
        for name, value in answer.headers.items():
            self.send_header(name, str(value))
        if answer.status not in (204, 304):
            self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        self.wfile.write(answer.body)

    do_GET = do_POST = do_PUT = do_DELETE = _handle

    def _route(self):
        server, url = self.server, urlsplit(self.path)
        self.query = dict(parse_qsl(url.query))
        kind, _, rest = url.path.partition("/storage/v1/b/")
        bucket, *parts = map(unquote, rest.split("/"))
        if server.refusal:
            return _Answer(server.refusal, "It does not have the right to do this.")
        if rest and bucket != server.name:
            return _Answer(404, "The specified bucket does not exist.")
        match self.command, kind, parts:
            case "GET", "", [] if rest:
                if server.objects_only:
                    return _Answer(403, "no storage.buckets.get")
                return _Answer(200, {"kind": "storage#bucket", "name": server.name})
            case "GET", "", ["o"]:
                return self._list()
            case "POST", "/upload", ["o"]:
                return self._upload(self.query.get("uploadType"), self.query.get("upload_id"))
            case "GET", ("" | "/download"), ["o", name]:
                return self._read(name)
            case "DELETE", "", ["o", name]:
                self._check(name)
                self._existing(name)
                server.announce("DELETE", name)
                del server.objects[name]
                return _Answer(204)
            case "POST", "", ["o", name, "moveTo", "o", target]:
                answer = self._write(target, self._existing(name).content)
                del server.objects[name]
                return answer
        return self._unknown()

    def _list(self):
        prefix, delimiter = self.query.get("prefix", ""), self.query.get("delimiter")
        start, end = self.query.get("startOffset", ""), self.query.get("endOffset", "\U0010ffff")
        found = {}  # Name of an object or a prefix, in order: whether a prefix.
        for name in sorted(self.server.objects):
            if name.startswith(prefix) and start <= name < end:
                head, divided, _ = name[len(prefix) :].partition(delimiter or "\0")
                found[prefix + head + divided] = bool(divided)
        left = [name for name in found if name > self.query.get("pageToken", "")]
        page = left[: min(PAGE, int(self.query.get("maxResults", PAGE)))]
        listing = {
            "kind": "storage#objects",
            "items": [self._metadata(name) for name in page if not found[name]],
            "prefixes": [name for name in page if found[name]],
        }
        return _Answer(200, listing | ({"nextPageToken": page[-1]} if page != left else {}))

    def _upload(self, kind, number):
        uploads, name = self.server.uploads, self.query.get("name", "")
        if kind == "media":
            return self._write(name, self.body)
        if kind == "multipart":
            line = "--" + self.headers["Content-Type"].split("boundary=")[1].strip('"')
            _, metadata, rest = self.body.split(line.encode(), 2)
            content = rest.rsplit(line.encode(), 1)[0].split(b"\n\n", 1)[1].removesuffix(b"\n")
            return self._write(json.loads(metadata.split(b"\n\n", 1)[1])["name"], content)
        if kind != "resumable":
            return self._unknown()
        if number is None:
            number = str(len(uploads))
            uploads[number] = name, bytearray()
            url = f"http://{self.headers['Host']}{urlsplit(self.path).path}"
            return _Answer(200, Location=f"{url}?uploadType=resumable&upload_id={number}")
        name, received = uploads[number]
        received += self.body
        if self.headers["Content-Range"].endswith("/*"):
            return _Answer(308, Range=f"bytes=0-{len(received) - 1}")
        return self._write(name, bytes(received))

    def _read(self, name):
        self._check(name)
        stored = self._existing(name)
        self.server.announce("GET", name)
        if self.query.get("alt") != "media":
            return _Answer(200, self._metadata(name))
        headers = {"x-goog-generation": stored.generation, "x-goog-metageneration": 1}
        size = len(stored.content)
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return _Answer(200, stored.content, **headers)
        if wanted[1]:
            start, end = int(wanted[1]), min(int(wanted[2] or size) + 1, size)
        else:
            start, end = max(size - int(wanted[2]), 0), size
        if start >= size:
            return _Answer(416, "The requested range is not satisfiable.")
        content_range = {"Content-Range": f"bytes {start}-{end - 1}/{size}"}
        return _Answer(206, stored.content[start:end], **headers, **content_range)

    def _write(self, name, content):
        self._check(name)
        self.server.write(name, content)
        return _Answer(200, self._metadata(name))

    def _existing(self, name):
        if name not in self.server.objects:
            raise _Answer(404, f"No such object: {self.server.name}/{name}")
        return self.server.objects[name]

    def _check(self, name):
        """Answers a request whose preconditions do not hold; no object has generation 0."""
        stored = self.server.objects.get(name)
        generation = str(stored.generation if stored else 0)
        if self.query.get("ifGenerationMatch", generation) != generation:
            raise _Answer(412, "At least one of the pre-conditions you specified did not hold.")
        if self.query.get("ifGenerationNotMatch") == generation:
            raise _Answer(304 if self.command == "GET" else 412)

    def _metadata(self, name):
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

    def _unknown(self):
        self.server.unknown.append(f"{self.command} {self.path}")
        return _Answer(400, f"The stand-in has no answer to {self.command} {self.path}.")
