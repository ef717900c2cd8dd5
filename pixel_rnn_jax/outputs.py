"""Files and folders that the user names: complete once they have their names, or not there."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from pixel_rnn_jax.errors import UserError


@contextlib.contextmanager
def writing(out: str) -> Iterator[BinaryIO]:
    """Gives a file to write, which gets its name once it is complete, in place of any other.

    A link is followed, and a device or a pipe is written to as it is. Where nothing could be
    written, or after an error, what was there stays.

    Raises:
        UserError: It cannot be written.
    """
    path = Path(out)
    with _refused(out):
        if path.exists() and not path.is_file():
            if path.is_dir():
                raise UserError(f"{out} is a folder: give the name of a file")
            with path.open("wb") as file:
                yield file
            return
        path = path.resolve()  # But not /dev/stdout, a link to no path.
        path.parent.mkdir(parents=True, exist_ok=True)
        number, name = tempfile.mkstemp(prefix=f".{path.name[:40]}.", dir=path.parent)
        try:
            with os.fdopen(number, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            Path(name).chmod(path.stat().st_mode if path.exists() else 0o666 & ~_umask())
            Path(name).replace(path)
        finally:
            Path(name).unlink(missing_ok=True)


@contextlib.contextmanager
def filling(out: str) -> Iterator[Path]:
    """Gives a new folder to fill, which gets its name once it is complete; see `writing`."""
    path = Path(out).resolve()
    with _refused(out):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
        try:
            yield folder
            folder.chmod(0o777 & ~_umask())
            folder.replace(path)  # Which may be an empty folder.
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextlib.contextmanager
def _refused(out: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror or error}") from error
