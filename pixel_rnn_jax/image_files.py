"""Opening image files: which formats are read, and what is said of a file that cannot be."""

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageFile, TiffImagePlugin

from pixel_rnn_jax.errors import UserError, first_sentence

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Of these suffixes. Without names Pillow tries every format that it knows, whatever the suffix:
# it would hand a PostScript file to Ghostscript, which runs programs.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# Tags of EXIF and TIFF.
_ORIENTATION, _BITS_PER_SAMPLE = 274, 258


def check_whole(image: ImageFile.ImageFile, name: str) -> None:
    """Checks that all values of an image that is open, and not decoded yet, will be read.

    Raises:
        UserError: Pillow would drop digits or frames of it, or stretch its values; or it is stored
            turned or mirrored.
    """
    if loses_digits(image):
        raise UserError(
            f"{name} has colours of 16 bits, of which 8 would be read: convert it first"
        )
    largest = _largest_of_ppm(image)
    if largest not in (255, 2**16 - 1):
        raise UserError(
            f"{name} has the maximum {largest} in its header, and would be read as if that were "
            "255 or 65535: convert it to a PNG or .npy file that holds the same values"
        )
    # The second picture of an MPO file, from a phone, says more about the first.
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise UserError(f"{name} has several pages or frames: give each a file of its own")
    turned = image.getexif().get(_ORIENTATION, 1) if "exif" in image.info else 1
    if turned in range(2, 9) and image.format != "TIFF":  # Of which Pillow turns the pixels.
        raise UserError(
            f"{name} is stored turned or mirrored (its EXIF orientation is {turned}): turn its "
            "pixels first, with `mogrify -auto-orient` for example"
        )


def loses_digits(image: ImageFile.ImageFile) -> bool:
    """Whether the file of an image that is not decoded yet has more bits a value than are read."""
    if image.mode.startswith("I"):
        return False
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return max(_as_tuple(image.tag_v2.get(_BITS_PER_SAMPLE, 1))) > 8
    for _, _, _, arguments in image.tile:
        words = _as_tuple(arguments)
        # Not "BGR;16" of BMP files, which is 16 bits a pixel.
        if any(re.match(r"(RGB|LA)\w*;16", str(word)) for word in words):
            return True
    return _largest_of_ppm(image) > 255


def _largest_of_ppm(image: ImageFile.ImageFile) -> int:
    """Returns the maximum in the header of a PGM or PPM file; 255 where all are as they are."""
    for codec, _, _, arguments in image.tile:
        if codec.startswith("ppm") and image.mode != "1":
            return int(_as_tuple(arguments)[-1])
    return 255


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@contextlib.contextmanager
def open_image(file: Path | BinaryIO, name: str) -> Iterator[ImageFile.ImageFile]:
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
