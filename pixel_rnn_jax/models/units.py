"""The linear map between real values and what the networks see of them."""

from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike


@dataclass(frozen=True)
class Units:
    """Standardised values are (x - offset) / scale. Without numbers it maps nothing.

    Attributes:
        offset: `[C]`, or ().
        scale: `[C]`, or ().
        dtype: The type of standardised values.
    """

    offset: tuple[float, ...]
    scale: tuple[float, ...]
    dtype: DTypeLike

    def standardised(self, images: Array) -> Array:
        """Maps images, `[B, H, W, C]`, to the values that the networks see."""
        if not self.scale:
            return images
        return (images.astype(self.dtype) - self._array(self.offset)) / self._array(self.scale)

    def restored(self, values: Array) -> Array:
        """Maps standardised values, `[B, H, W, C]`, to images."""
        return values * self._array(self.scale) + self._array(self.offset)

    @property
    def log_scale(self) -> np.ndarray:
        """What a log-density of standardised values has to be lowered by, `[1, 1, 1, C]` or 0."""
        return np.log(self._array(self.scale)) if self.scale else np.zeros((1,) * 4, self.dtype)

    def _array(self, numbers: tuple[float, ...]) -> np.ndarray:
        return np.asarray(numbers, jnp.dtype(self.dtype)).reshape(1, 1, 1, -1)
