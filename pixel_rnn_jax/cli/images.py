"""Images that the user names with --images."""

from pathlib import Path

import numpy as np

from pixel_rnn_jax import data
from pixel_rnn_jax.config import DataConfig, ModelConfig
from pixel_rnn_jax.data import Batch, Records
from pixel_rnn_jax.errors import UserError


def open_images(path: str) -> Records:
    """Opens all images of a folder or of an .npy or .npz file, as they are stored."""
    # An absolute path is never taken for the name of a TFDS set.
    config = DataConfig(name=str(Path(path).expanduser().absolute()))
    try:
        return data.open_records(config, "all")
    except UserError as error:  # It speaks of the field of a config, where such paths mostly stand.
        raise UserError(str(error).replace("data.name", "--images")) from error


def read_batch(records: Records, indices: np.ndarray, config: ModelConfig) -> Batch:
    """Reads some of the images, with their condition for a model that has one."""
    images = records.read(indices)
    if not config.discrete and images.dtype.kind != "f":
        images = images.astype(np.float32)
    if config.classes:
        if records.labels is None:
            raise UserError(
                f"the model has {config.classes} classes, but {records.name} has no labels: give "
                "--images an .npz file with an array `labels`"
            )
        labels = records.labels(indices)
        if records.class_names:
            labels = np.array(records.class_names)[labels]
        return Batch(images, labels)
    if config.condition_vector or config.condition_map:
        if records.condition is None:
            raise UserError(
                f"the model has a condition, but {records.name} has none: give --images an .npz "
                "file with an array `condition`"
            )
        return Batch(images, records.condition(indices))
    return Batch(images)


def read_condition(path: str | None) -> np.ndarray | None:
    """Reads the array of an .npy file, or `condition` of an .npz file; None without a path."""
    if path is None:
        return None
    try:
        found = np.load(path)
        return found if isinstance(found, np.ndarray) else found["condition"]
    except KeyError as error:
        raise UserError(f"--condition={path} holds no array `condition`") from error
    except Exception as error:  # NumPy, zipfile and zlib raise many types for a damaged file.
        raise UserError(f"--condition={path} cannot be read as an array: {error}") from error
