"""Batches of images, and the type of values that are levels."""

from typing import Any, NamedTuple, Protocol

import numpy as np


class Batch(NamedTuple):
    """Images with what a model is conditioned on, as NumPy or JAX arrays.

    Attributes:
        images: `[B, H, W, C]` integers from 0 to K - 1, or floats: dequantised values, or any real
            ones.
        condition: `[B]` integers of a model with classes; `[B, D]` or `[B, H, W, D]` float32 of a
            model with condition_vector or condition_map; None for a model without condition.
    """

    images: Any
    condition: Any = None


class Readable(Protocol):
    """Images that are read some at a time, by their numbers."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> Batch:
        """Returns the images with these numbers."""


def value_dtype(levels: int) -> np.dtype:
    """Returns the smallest of uint8, uint16 and int32 that holds the values 0 to `levels` - 1."""
    return np.min_scalar_type(levels - 1) if levels <= 2**16 else np.dtype(np.int32)
