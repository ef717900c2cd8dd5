"""Sets that are image files: those of a folder, or a single one."""

import dataclasses
import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pixel_rnn_jax.data import records
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_files import SUFFIXES, check_whole, open_image

# Pillow's modes whose values are intensities.
_MODES = ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I")


def open_folder(path: Path, name: str, split: str) -> records.Records:
    """Opens a split of a folder of image files, perhaps with a subfolder for each split.

    Its images are kept once they are decoded, if they are not too large; `name` is for errors.
    """
    found = open_folder_once(path, name, split)
    read = records.cached(found.read, len(found.keys), found.image_shape, found.dtype)
    return dataclasses.replace(found, read=read)


def open_folder_once(path: Path, name: str, split: str) -> records.Records:
    """Opens a split of a folder as `open_folder` does; an image is decoded each time it is read."""
    if not path.is_dir():
        raise UserError(f"{name}: there is no such folder")
    folders = [folder.name for folder in path.iterdir() if folder.is_dir()]
    if records.is_divided(name, split, folders):
        container, files = split, _image_files(path / split, name)
        rows = np.arange(len(files))
    else:
        container, files = "", _image_files(path, name)
        rows = records.divide(name, split, len(files))
    names = [file.relative_to(path / container).as_posix() for file in files]
    chosen, names = [files[row] for row in rows], [names[row] for row in rows]
    _check_forms(files[0], chosen, name)
    keys = records.record_keys(container, rows)
    return _records(f"split {split!r} of {name}", chosen, names, keys)


def open_image_file(path: Path, name: str) -> records.Records:
    """Opens an image file as a set of one image."""
    _form(path)
    return _records(name, [path], [path.name], records.record_keys("", np.arange(1)))


def _records(
    name: str, files: Sequence[Path], names: Sequence[str], keys: np.ndarray
) -> records.Records:
    """Returns the records of image files of one form, which have `names` in their set."""
    decoded = decode_image(files[0], str(files[0]))
    with open_image(files[0], str(files[0])) as first:
        mode = first.mode

    def read(indices: np.ndarray) -> np.ndarray:
        unique, rows = np.unique(indices, return_inverse=True)  # One image pads the last batch.
        return np.stack([decode_image(files[i], str(files[i])) for i in unique.tolist()])[rows]

    return records.Records(
        name=name,
        image_shape=decoded.shape,
        dtype=decoded.dtype,
        keys=keys,
        read=read,
        file=names.__getitem__,
        mode=mode,
    )


def _check_forms(first: Path, files: Sequence[Path], name: str) -> None:
    """Checks that all files have the size and the mode of the first."""
    form = _form(first)
    for file in files:
        if (other := _form(file)) != form:
            raise UserError(
                f"all images of {name} must have one size and mode: {file} is {other}, but {first} "
                f"is {form}"
            )


def _form(file: Path) -> str:
    """Returns the size and mode of an image whose values are intensities, as "8x8 'L'"."""
    with open_image(file, str(file)) as image:
        if image.mode not in _MODES:
            raise UserError(
                f"{file} has mode {image.mode!r}, whose values are not intensities: convert the "
                "images to grey or RGB first"
            )
        check_whole(image, str(file))
        return f"{image.height}x{image.width} {image.mode!r}"


def decode_image(file: Path | io.BytesIO, name: str) -> np.ndarray:
    """Returns the pixels [H, W, C] of an image file; `name` is for error messages."""
    with open_image(file, name) as image:
        return pixels(image)


def pixels(image: Image.Image) -> np.ndarray:
    """Returns the pixels [H, W, C] of an image."""
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def has_images(folder: Path) -> bool:
    """Whether there is an image file in a folder, or in one below it."""
    return any(True for _ in _found(folder))


def _found(folder: Path) -> Iterator[Path]:
    files = folder.rglob("*")
    return (file for file in files if file.suffix.lower() in SUFFIXES and file.is_file())


def _image_files(folder: Path, name: str) -> list[Path]:
    files = sorted(_found(folder))
    if not files:
        raise UserError(f"{name}: there are no image files in {folder} ({', '.join(SUFFIXES)})")
    return files
