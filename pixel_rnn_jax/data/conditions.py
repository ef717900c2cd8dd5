"""What a model is conditioned on: the labels of the images, or numbers beside them."""

import numpy as np

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.data.records import Read, Records, finite
from pixel_rnn_jax.errors import UserError


def condition_reader(records: Records, model: ModelConfig) -> Read | None:
    """Returns what maps record numbers [B] to `Batch.condition`; None for a model without one.

    Raises:
        UserError: The set has no such condition, or it does not fit the model or the images.
    """
    if model.num_classes:
        return _labels(records, model.num_classes)
    if model.condition_vector:
        return _numbers(records, "condition_vector", (model.condition_vector,))
    if model.condition_map:
        shape = (*records.image_shape[:2], model.condition_map)
        return _numbers(records, "condition_map", shape)
    return None


def _labels(records: Records, classes: int) -> Read:
    if why := records.unusable.get("labels"):
        raise UserError(f"the labels of {records.name} do not fit its images: {why}")
    if (labels := records.labels) is None:
        raise UserError(
            f"{records.name} has no labels: model.num_classes must be 0, or choose a labelled set (an "
            ".npz file may hold an array `labels`, an integer from 0 on or a string for each image)"
        )
    if records.classes > classes:
        raise UserError(
            f"{records.name} has {records.classes} classes, but model.num_classes is {classes}: "
            "set it to their number"
        )

    def read(indices: np.ndarray) -> np.ndarray:
        found = labels(indices)
        if (found < 0).any():  # As some sets of TFDS mark images without a label.
            first = int(np.argmax(found < 0))
            raise UserError(
                f"record {indices[first]} of {records.name} has the label {found[first]}: set "
                "model.num_classes to 0, or choose a split whose images all have labels"
            )
        return found.astype(np.int32)

    return read


def _numbers(records: Records, field: str, shape: tuple[int, ...]) -> Read:
    takes = f"model.{field} is {shape[-1]}, which takes an array `condition` of {_rows(shape)}"
    if why := records.unusable.get("condition"):
        raise UserError(f"the condition of {records.name} does not fit its images: {why}")
    if (condition := records.condition) is None:
        raise UserError(
            f"{records.name} has no condition, but {takes}: set it to 0, or choose an .npz file "
            "with that array"
        )
    if records.condition_shape != shape:
        raise UserError(
            f"{records.name} has a condition of {_rows(records.condition_shape)}, but {takes}: "
            "give the array that shape, or set model.condition_vector or model.condition_map to "
            "what it holds"
        )
    name = f"the condition of {records.name}"
    return lambda indices: finite(condition(indices), indices, name)


def _rows(shape: tuple[int, ...]) -> str:
    return f"shape [N, {', '.join(map(str, shape))}]"
