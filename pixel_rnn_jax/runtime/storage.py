"""Files of a workdir, which may be in a bucket of Google Cloud Storage (gs://), and their errors.

Three libraries reach a bucket: gcsfs, which epath uses for all files; TensorStore, for the arrays
of checkpoints; and google-cloud-storage, with which Orbax asks for the type of the bucket.
"""

import contextlib
import errno
import functools
import logging
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

from etils import epath

from pixel_rnn_jax.errors import UserError

DAMAGED_JSON = ValueError, TypeError, KeyError, AttributeError, RecursionError
"""What comes of reading damaged JSON, and of taking from it what should be there."""
START_S = 10
"""How long the bucket may take to answer at the start."""


def check(workdir: epath.PathLike) -> None:
    """Checks that the bucket of a workdir, if it is in one, can be used; call it before any work.

    Raises:
        UserError: The bucket does not exist, cannot be reached or may not be used; gcsfs is not
            installed; the scheme is not gs://; or the path of a folder is one that epath, which
            opens it, takes for a bucket.
    """
    if "://" not in os.fspath(workdir):
        if "://" in str(taken := epath.Path(os.path.abspath(workdir))):
            raise UserError(
                f"{workdir} would be taken for {taken}: give the folder another path, for example "
                "that of a link to it"
            )
        return
    try:
        scheme, name, folder = urlsplit(os.fspath(workdir))[:3]
    except ValueError:  # Square brackets that hold no address.
        scheme = name = folder = ""
    if scheme != "gs" or not name:
        raise UserError(f"{workdir} is neither a folder nor in a bucket (gs://BUCKET/FOLDER)")
    try:
        import fsspec
        import gcsfs  # noqa: F401
        from google.api_core.exceptions import Forbidden, NotFound, Unauthorized
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY
    except ImportError as error:
        raise UserError(
            f"{workdir} needs packages that are not installed: pip install 'pixel-rnn-jax[gcs]'"
        ) from error
    _silence_gcsfs()
    # gcsfs would remember what it has listed, and not see what another process writes later.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # Where TensorFlow is installed, to prepare data sets, epath would use its file system instead.
    os.environ.setdefault("EPATH_USE_TF", "false")
    retry = DEFAULT_RETRY.with_timeout(START_S)
    try:
        # The calls that Orbax makes. Creating a folder would create a bucket that does not exist.
        with contextlib.closing(storage.Client()) as client:
            bucket = client.get_bucket(name, retry=retry)
            list(bucket.list_blobs(max_results=1, prefix=folder[1:], retry=retry))
    except NotFound as error:
        raise UserError(
            f"there is no bucket gs://{name}: create it, or choose another --workdir"
        ) from error
    except (Forbidden, Unauthorized) as error:
        said = error.message.partition(": ")[2]  # After the address.
        raise UserError(
            f"gs://{name} may not be used ({said}): give yourself the right to get the bucket "
            "(storage.buckets.get) and to list, read, write and delete its objects"
        ) from error
    except Exception as error:
        raise UserError(
            f"gs://{name} cannot be reached ({reason(error)}): look at its name, the network and "
            "your credentials (gcloud auth application-default login)"
        ) from error


def write_atomically(path: epath.Path, content: bytes) -> None:
    """Writes a file so that a reader finds either its old content or the whole new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f"{path.name}.unfinished"
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError:  # Such as a full disk.
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


@contextlib.contextmanager
def writing(workdir: epath.PathLike, kind: type[Exception] = UserError) -> Iterator[None]:
    """Raises an error of this kind if something cannot be written within the `with`."""
    try:
        yield
    except errors() as error:
        raise kind(f"{workdir} cannot be written to: {reason(error)}") from error


def errors() -> tuple[type[Exception], ...]:
    """Returns the exceptions that reading and writing files may raise, in a bucket or elsewhere."""
    if "gcsfs" not in sys.modules:
        return (OSError,)
    from aiohttp import ClientError
    from gcsfs.retry import HttpError
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return OSError, ClientError, HttpError, GoogleAPIError, GoogleAuthError


def causes(error: BaseException) -> list[BaseException]:
    """Returns an error and those that led to it, the root cause last."""
    earlier = error.__cause__ or error.__context__
    return [error, *(causes(earlier) if earlier else ())]


def system_error(error: BaseException) -> str | None:
    """Returns the message of the system's error that an error goes back to, if there is one."""
    for link in causes(error):
        text = link.strerror if isinstance(link, OSError) else None
        if code := re.search(r"os_error_code='(\d+)'", str(link)):  # TensorStore's.
            text = os.strerror(int(code[1]))
        if text:
            full = os.strerror(errno.ENOSPC), os.strerror(errno.EDQUOT)
            return "the disk is full" if text in full else text
    return None


def reason(error: BaseException) -> str:
    """Returns in a few words what has failed: the system's message, or the server's."""
    last_line = (str(error).strip() or type(error).__name__).splitlines()[-1]
    # TensorStore's messages end with the whole specification of the array.
    return system_error(error) or textwrap.shorten(last_line, 200, placeholder=" ...")


def out_of_reach(error: BaseException) -> bool:
    """Whether an error comes from the network or a lack of rights, not from a damaged file."""
    remote = tuple(kind for kind in errors() if kind is not OSError)
    # gcsfs raises OSError without a number for a lack of rights; TensorStore has statuses in text.
    signs = "^Forbidden: |PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED"
    return any(
        isinstance(link, (PermissionError, *remote)) or re.search(signs, str(link))
        for link in causes(error)
    )


def silence_unraisable(harmless: Callable[[BaseException | None], bool]) -> None:
    """Keeps Python from printing those exceptions that nobody can catch and that are harmless."""
    previous = sys.unraisablehook

    def hook(unraisable: Any) -> None:
        if not harmless(unraisable.exc_value):
            previous(unraisable)

    sys.unraisablehook = hook


@functools.cache
def _silence_gcsfs() -> None:
    """Switches off its log messages, which are of errors that it raises as well."""
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    # The buffer of a file that could not be written is still in use when Python clears it away.
    silence_unraisable(lambda error: isinstance(error, BufferError))
