# ruff: noqa: D1
"""What runs/, training/ and report/ use of the old storage.py, until theirs are merged."""

import contextlib
import errno
import os
import re
import sys
import textwrap
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from pixel_rnn_jax.errors import UserError

DAMAGED_JSON = ValueError, TypeError, KeyError, AttributeError, RecursionError


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
