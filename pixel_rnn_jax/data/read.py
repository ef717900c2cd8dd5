"""Images that the user names by a path, as they are stored."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from etils import epath

from pixel_rnn_jax.data.arrays import open_array_file
from pixel_rnn_jax.data.folder import open_folder_once, open_image_file
from pixel_rnn_jax.data.records import Records, open_part
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_files import SUFFIXES
from pixel_rnn_jax.paths import expanded


class Images(NamedTuple):
    """Images with their names.

    Attributes:
        images: `[N, H, W, C]`, as a model takes them.
        condition: Classes `[N]`, by number or by name, or vectors `[N, D]` or maps `[N, H, W, D]`;
            None if there are none.
        names: N strings: names of files relative to their folder, or rows in an array.
    """

    images: np.ndarray
    condition: np.ndarray | None = None
    names: Sequence[str] = ()


def open_images(path: epath.PathLike, split: str | None = None, flag: str = "") -> Records:
    """Opens the images of a folder, of an image file, or of an .npy or .npz file.

    Args:
        path: Where they are.
        split: A subfolder, a key of an .npz file, or "train", "validation" or "test" (images
            without such parts are divided, always in the same way), or a part of one, such as
            "test[:300]"; None for all.
        flag: The flag that names them, for error messages.

    Raises:
        UserError: There is no such path or split, or it does not hold images of one size.
    """
    place = Path(expanded(path, flag or "path")).absolute()
    name = f"{flag} {str(place)!r}".strip()
    if place.suffix in (".npy", ".npz"):
        found = open_part(lambda split: open_array_file(place, name, split), split or "all")
    elif place.is_dir():
        found = open_part(lambda split: open_folder_once(place, name, split), split or "all")
    elif not place.exists():
        raise UserError(f"{name}: there is no such folder or image file")
    elif place.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{name} must be a folder, an .npy or .npz file, or an image file ending in "
            f"{', '.join(SUFFIXES)}"
        )
    elif split is not None:
        raise UserError(f"{name} is one image, which has no split {split!r}: name no split")
    else:
        found = open_image_file(place, name)
    return found if split else dataclasses.replace(found, name=name)


def read_stored(path: epath.PathLike, split: str | None = None) -> Images:
    """Reads images as they are stored; arguments and errors are those of `open_images`.

    The condition are the labels if there are any, by their names if they have some.

    Raises:
        UserError: Also if the labels or the condition do not fit the images.
    """
    records = open_images(path, split)
    for what, why in records.unusable.items():
        raise UserError(f"the {what} of {records.name} do not fit its images: {why}")
    indices, condition = np.arange(len(records.keys)), None
    if records.labels is not None:
        condition = records.labels(indices)
        if records.class_names:
            condition = np.array(records.class_names)[condition]
    elif records.condition is not None:
        condition = records.condition(indices)
    return Images(records.read(indices), condition, records.record_names())
