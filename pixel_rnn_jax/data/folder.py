"""Sets that are folders of image files."""

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.data import records
from pixel_rnn_jax.errors import UserError

_SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
# Pillow's modes whose values are intensities.
_MODES = ("1", "L", "LA", "RGB", "RGBA", "I;16", "I")


def open_folder(path: Path, config: DataConfig, split: str) -> records.Records:
    """Opens a split of a folder of image files, perhaps with a subfolder for each split."""
    if not path.is_dir():
        raise UserError(f"data.name {config.name!r}: there is no such folder")
    folders = [folder.name for folder in path.iterdir() if folder.is_dir()]
    if records.is_divided(config, split, folders):
        container, files = split, _image_files(path / split, config)
        rows = np.arange(len(files))
    else:
        container, files = "", _image_files(path, config)
        rows = records.divide(config, split, len(files))
    first, files = files[0], [files[row] for row in rows]
    form = _form(first)
    for file in files:
        if (other := _form(file)) != form:
            raise UserError(
                f"all images of data.name {config.name!r} must have one size and mode: {file} is "
                f"{other}, but {first} is {form}"
            )
    pixels = decode_image(first, str(first))

    def read(indices: np.ndarray) -> np.ndarray:
        return np.stack([decode_image(files[index], str(files[index])) for index in indices])

    return records.Records(
        name=records.split_name(config, split),
        image_shape=pixels.shape,
        dtype=pixels.dtype,
        keys=records.record_keys(container, rows),
        read=records.cached(read, len(files), pixels.shape, pixels.dtype),
    )


def _form(file: Path) -> str:
    """Returns the size and mode of an image whose values are intensities, as "8x8 'L'"."""
    with _open(file, str(file)) as image:
        if image.mode not in _MODES:
            raise UserError(
                f"{file} has mode {image.mode!r}, whose values are not intensities: convert the "
                "images to grey or RGB first"
            )
        return f"{image.height}x{image.width} {image.mode!r}"


def decode_image(file: Path | io.BytesIO, name: str) -> np.ndarray:
    """Returns the pixels [H, W, C] of an image file; `name` is for error messages."""
    with _open(file, name) as image:
        pixels = np.asarray(image)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@contextlib.contextmanager
def _open(file: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    try:
        with Image.open(file) as image:
            yield image
    except (OSError, SyntaxError) as error:  # Pillow calls a damaged PNG a syntax error.
        reason = records.first_sentence(error)
        raise UserError(f"{name} cannot be read as an image: {reason}") from error


def _image_files(folder: Path, config: DataConfig) -> list[Path]:
    files = sorted(
        file for file in folder.rglob("*") if file.suffix.lower() in _SUFFIXES and file.is_file()
    )
    if not files:
        raise UserError(
            f"data.name {config.name!r}: there are no image files in {folder} "
            f"({', '.join(_SUFFIXES)})"
        )
    return files
