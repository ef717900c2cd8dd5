"""Files and folders that the user names: complete once they have their names, or not there."""

import contextlib
import errno
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

from pixel_rnn_jax.errors import UserError


def check_name(out: str) -> None:
    """Checks, before any work, that `out` can be written here: gs://a would be a folder "gs:"."""
    if not out or "://" in out:
        raise UserError(f"{out!r} is not the name of a file or folder on this machine")
    path = Path(out)
    with _refused(out):
        with contextlib.suppress(FileNotFoundError):
            os.lstat(out)  # Too long, below a file, or in a folder that may not be entered.
        if is_standard_output(out) or (path.exists() and not path.is_file() and not path.is_dir()):
            return  # Or a device or a pipe.
        place = path.resolve()
        folder = next((parent for parent in place.parents if parent.exists()), place)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def check_file(out: str, ending: str = "", what: str = "") -> None:
    """Checks, before any work, that `out` can be written (see `check_name`) and is no folder.

    With `ending` it must have that; `what` says of which results it is the file.
    """
    if ending and Path(out).suffix != ending:
        raise UserError(f"{what} must be written to a file that ends in {ending}, got {out!r}")
    check_name(out)
    if os.path.isdir(out):
        raise UserError(f"{out} is a folder: give the name of a file")


@contextlib.contextmanager
def writing(out: str) -> Iterator[BinaryIO]:
    """Gives a file to write, which gets its name once it is complete, in place of any other.

    A link is followed. Where nothing could be written, or after an error, what was there stays. But
    a device, a pipe and the standard output are written to as they are.

    Raises:
        UserError: It cannot be written.
    """
    path = Path(out)
    check_file(out)
    with _refused(out):
        if is_standard_output(out):  # It may be a file with something in it: not opened anew.
            sys.stdout.flush()
            with open(os.dup(sys.stdout.fileno()), "wb") as file:
                yield file
            return
        if path.exists() and not path.is_file():
            with path.open("wb") as file:
                yield file
            return
        path = path.resolve()
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}")
        try:
            with unfinished.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if path.exists():
                unfinished.chmod(path.stat().st_mode)
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)


def is_standard_output(out: str) -> bool:
    """Whether a name, such as /dev/stdout, is another one of the file that lines are printed to."""
    with contextlib.suppress(OSError, ValueError, AttributeError):  # One of them is no file.
        # A file by its own name is replaced.
        named = os.path.abspath(out).startswith(("/dev/", "/proc/"))
        return named and os.path.samestat(os.stat(out), os.fstat(sys.stdout.fileno()))
    return False


def abandon(stream: TextIO) -> None:
    """Sends a stream that cannot be written to nowhere: Python would try again at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextlib.contextmanager
def filling(out: str) -> Iterator[Path]:
    """Gives a new folder to fill, which gets its name once it is complete; see `writing`."""
    path = Path(out).resolve()
    check_name(out)
    with _refused(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = path.with_name(f".{path.name[:40]}.{uuid.uuid4().hex}")
        folder.mkdir()
        try:
            yield folder
            folder.replace(path)  # Which may be an empty folder.
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _refused(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
