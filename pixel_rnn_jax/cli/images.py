"""Images that the user names with --images."""

from pathlib import Path

import numpy as np

from pixel_rnn_jax import data
from pixel_rnn_jax.config import DataConfig
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


def read_batch(records: Records, indices: np.ndarray, classes: int) -> Batch:
    """Reads some of the images, with their labels for a model with classes."""
    if not classes:
        return Batch(records.read(indices))
    if records.labels is None:
        raise UserError(
            f"the model has {classes} classes, but {records.name} has no labels: give "
            "--images an .npz file with an array `labels`"
        )
    return Batch(records.read(indices), records.labels(indices))
