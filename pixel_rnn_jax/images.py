"""Images as arrays of integers: the type that holds K levels, and whether values fit a model."""

import numpy as np

from pixel_rnn_jax.errors import UserError


def value_dtype(levels: int) -> np.dtype:
    """Returns the type that images of K levels are returned in: uint8, uint16 or int32."""
    return np.min_scalar_type(levels - 1) if levels <= 2**16 else np.dtype(np.int32)


def check_images(images: np.ndarray, image_shape: tuple[int, int, int], levels: int) -> None:
    """Checks images that a model is given.

    Args:
        images: Should be `[B, H, W, C]` integers from 0 to K - 1.
        image_shape: (H, W, C) of the model.
        levels: K of the model.

    Raises:
        UserError: The shape, the type or a value does not fit.
    """
    if images.ndim != 4 or images.shape[1:] != image_shape:
        height, width, channels = image_shape
        raise UserError(
            f"images must have shape [B, {height}, {width}, {channels}], got {list(images.shape)}"
        )
    if images.dtype.kind not in "biu":
        raise UserError(
            f"images must be integers from 0 to {levels - 1} (unscaled), got {images.dtype} values"
        )
    if images.size and (images.min() < 0 or images.max() >= levels):
        raise UserError(
            f"images must have values from 0 to {levels - 1}, got {images.min()} to {images.max()}"
        )
