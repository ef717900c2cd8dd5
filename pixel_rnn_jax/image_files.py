"""Opening image files: which formats are read, and what is said of a file that cannot be."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from pixel_rnn_jax.errors import UserError, first_sentence

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Of these suffixes. Without names Pillow tries every format that it knows, whatever the suffix:
# it would hand a PostScript file to Ghostscript, which runs programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")


@contextlib.contextmanager
def open_image(file: Path | BinaryIO, name: str) -> Iterator[Image.Image]:
    """Opens an image file, whose pixels are decoded when they are used; `name` is for errors.

    Raises:
        UserError: It is damaged, of another format, or has more pixels than Pillow holds for safe.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            yield image
    except (UserError, MemoryError):
        raise
    except Exception as error:  # Pillow raises many types for a damaged file.
        reason = first_sentence(error)
        raise UserError(f"{name} cannot be read as an image: {reason}") from error
