"""Batches of images and their classes: the type that holds K levels, and what fits a model."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pixel_rnn_jax.errors import UserError


class Batch(NamedTuple):
    """Images with their classes.

    Attributes:
        images: `[B, H, W, C]` integers from 0 to K - 1, or dequantised values (floats); of NumPy or
            of JAX.
        labels: `[B]` integers; None for a model without classes.
    """

    images: Any
    labels: Any = None


def value_dtype(levels: int) -> np.dtype:
    """Returns the type that images of K levels are returned in: uint8, uint16 or int32."""
    return np.min_scalar_type(levels - 1) if levels <= 2**16 else np.dtype(np.int32)


def check_images(
    images: np.ndarray, image_shape: tuple[int, int, int], levels: int, *, discrete: bool = True
) -> None:
    """Checks images that a model is given.

    Args:
        images: Should be `[B, H, W, C]` integers from 0 to K - 1; of a density, finite floats, of
            which level x has those from x to x + 1.
        image_shape: (H, W, C) of the model.
        levels: K of the model.
        discrete: Whether the model is not a density.

    Raises:
        UserError: The shape, the type or a value does not fit.
    """
    if images.ndim != 4 or images.shape[1:] != image_shape:
        height, width, channels = image_shape
        raise UserError(
            f"images must have shape [B, {height}, {width}, {channels}], got {list(images.shape)}"
        )
    if discrete and images.dtype.kind not in "biu":
        raise UserError(
            f"images must be integers from 0 to {levels - 1} (unscaled), got {images.dtype} values"
        )
    if not discrete and images.dtype.kind != "f":
        raise UserError(
            f"a continuous model takes floats from 0 to {levels}, got {images.dtype} values: "
            "add noise with `dequantize`"
        )
    if not discrete:
        if not np.isfinite(images).all():
            raise UserError("images must have finite values, got NaN or infinity")
    elif images.size and (images.min() < 0 or images.max() >= levels):
        raise UserError(
            f"images must have values from 0 to {levels - 1}, got {images.min()} to {images.max()}"
        )


def check_labels(labels: ArrayLike | None, count: int, classes: int) -> np.ndarray | None:
    """Checks the classes of images that a model is given.

    Args:
        labels: Should be `[count]` integers from 0 to classes - 1; None without classes.
        count: Number of images.
        classes: Of the model; 0 for one that knows none.

    Returns:
        `[count]` of int32, or None.

    Raises:
        UserError: They are missing, superfluous, or do not fit.
    """
    if not classes:
        if labels is not None:
            raise UserError("labels are for a model with classes (model.classes): leave them out")
        return None
    if labels is None:
        raise UserError(
            f"this model has {classes} classes: give labels, [B] integers from 0 to {classes - 1}"
        )
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise UserError(
            f"labels must be {count} integers, one for each image, got shape "
            f"{list(labels.shape)} of {labels.dtype}"
        )
    if labels.size and (labels.min() < 0 or labels.max() >= classes):
        raise UserError(
            f"labels must be from 0 to {classes - 1}, got {labels.min()} to {labels.max()}"
        )
    return labels.astype(np.int32)
