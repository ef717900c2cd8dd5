"""Batches of images and labels, and the check that they fit a model."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from pixel_rnn_jax.errors import UserError


class Batch(NamedTuple):
    """Images with their labels, as NumPy or JAX arrays.

    Attributes:
        images: `[B, H, W, C]` integers from 0 to K - 1, or dequantised values (floats).
        labels: `[B]` integers; None for a model without classes.
    """

    images: Any
    labels: Any = None


def value_dtype(levels: int) -> np.dtype:
    """Returns the smallest of uint8, uint16 and int32 that holds the values 0 to `levels` - 1."""
    return np.min_scalar_type(levels - 1) if levels <= 2**16 else np.dtype(np.int32)


def check_images(
    images: np.ndarray, image_shape: tuple[int, int, int], levels: int, *, discrete: bool = True
) -> None:
    """Checks images for a model of images `image_shape`, (H, W, C), with K `levels`.

    A discrete model takes `[B, H, W, C]` integers from 0 to K - 1. A continuous model takes finite
    floats, where level x is the interval [x, x + 1).

    Raises:
        UserError: The shape, the type or a value does not fit.
    """
    if images.ndim != 4 or images.shape[1:] != image_shape:
        shape = ", ".join(map(str, image_shape))
        raise UserError(f"images must have shape [B, {shape}], got {list(images.shape)}")
    found = f"got {images.dtype} values"
    if not discrete:
        if images.dtype.kind != "f":
            raise UserError(
                f"a continuous model takes floats from 0 to {levels}, {found}: add noise with "
                "`dequantize`"
            )
        if not np.isfinite(images).all():
            raise UserError("images must have finite values, got NaN or infinity")
        return
    if images.dtype.kind not in "biu":
        raise UserError(f"images must be integers from 0 to {levels - 1} (unscaled), {found}")
    if images.size and (images.min() < 0 or images.max() >= levels):
        raise UserError(
            f"images must have values from 0 to {levels - 1}, got {images.min()} to {images.max()}"
        )


def check_labels(labels: ArrayLike | None, count: int, classes: int) -> np.ndarray | None:
    """Returns the labels of `count` images as int32; None for a model without classes.

    Raises:
        UserError: They are not `[count]` integers from 0 to `classes` - 1, they are missing, or the
            model has no classes.
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
