"""Files: written whole or not at all, and image files."""

import contextlib
import io
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from etils import epath
from PIL import Image

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# By name, since Pillow would hand a PostScript file to Ghostscript, which runs programs.
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@contextlib.contextmanager
def atomic_write(path: epath.PathLike) -> Iterator[BinaryIO]:
    """Gives a file to write, which takes the name `path` once it is complete and on disk.

    After an error, or a kill, what had the name before stays. A device or a pipe is written to as
    it is. The path may be in a bucket, whose objects appear whole.
    """
    target = epath.Path(path)
    if "://" in str(target):
        buffer = io.BytesIO()
        yield buffer
        target.write_bytes(buffer.getvalue())
        return
    if target.exists() and not target.is_file():
        with target.open("wb") as file:
            yield file
        return
    final = Path(target).resolve()  # A link stays one.
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f".{final.name[:40]}.{uuid.uuid4().hex}")
    try:
        with unfinished.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(final)
    finally:
        unfinished.unlink(missing_ok=True)


def open_image(file: Path | BinaryIO) -> Image.Image:
    """Opens an image file of one of `FORMATS`; its pixels are decoded when they are used."""
    return Image.open(file, formats=FORMATS)
