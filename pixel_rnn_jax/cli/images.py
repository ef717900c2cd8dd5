"""What the user names with --images and --condition."""

from collections.abc import Sequence

import numpy as np

from pixel_rnn_jax import data
from pixel_rnn_jax.data import npz
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.training.own_images import OwnImages


def open_images(
    path: str, model: PixelRNN, class_names: Sequence[str], split: str | None = None
) -> OwnImages:
    """Opens all images of --images, or a split of them, for a model."""
    records = data.open_images(path, split, flag="--images")
    return OwnImages(records, model, class_names)


def without_data(path: str) -> UserError:
    """Returns the error where images are those of the run, and `path` is only a model."""
    return UserError(
        f"{path} holds a model without its data set: give --images=PATH, or the workdir of the run"
    )


def read_condition(path: str | None) -> np.ndarray | None:
    """Reads the array of an .npy file, or `condition` of an .npz file; None without a path."""
    if path is None:
        return None
    try:
        found = np.load(path)
        if not isinstance(found, np.ndarray):
            with found as arrays:
                found = arrays["condition"]
    except KeyError as error:
        raise UserError(f"--condition={path} holds no array `condition`") from error
    except Exception as error:  # NumPy, zipfile and zlib raise many types for a damaged file.
        raise npz.not_read(f"--condition={path}", error) from error
    if not found.ndim or not len(found):
        given = "no rows" if found.ndim else "a single value"
        raise UserError(f"--condition={path} must hold a row for each image, got {given}")
    return found
