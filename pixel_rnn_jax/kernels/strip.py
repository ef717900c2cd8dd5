"""Strips: the pixels of a batch in one row, features first, `[F, Z]`.

In a strip every 1x1 convolution is one matmul with a long contiguous axis, and what a tap of a
larger kernel sees is one slice: each row of an image is followed by a gap of `columns`, and each
image is preceded by a gap of `rows` whole rows, so that Z = B * (rows + H) * (W + columns). On CPUs
the copies for the taps, and the matmuls of the gradient, take half the time that they take with
features last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax.kernels.shift import shift


class Strip(NamedTuple):
    """How images lie in a strip.

    Attributes:
        height: H.
        width: W.
        rows: Rows of the gap before each image: how far up a tap reaches.
        columns: Columns of the gap after each row: how far left or right a tap reaches.
    """

    height: int
    width: int
    rows: int = 0
    columns: int = 0

    def lay(self, x: Array) -> Array:
        """Lays maps, `[F, B, H, W]`, in a strip, `[F, Z]`, with zeros in the gaps."""
        x = jnp.pad(x, ((0, 0), (0, 0), (self.rows, 0), (0, self.columns)))
        return x.reshape(len(x), -1)

    def lift(self, x: Array) -> Array:
        """Takes a strip, `[F, Z]`, back to maps, `[F, B, H, W]`."""
        x = x.reshape(len(x), -1, self.rows + self.height, self.width + self.columns)
        return x[:, :, self.rows :, : self.width]

    def lay_last(self, x: Array) -> Array:
        """Lays maps with features last, `[B, H, W, F]`, in a strip like that, `[Z, F]`."""
        x = jnp.pad(x, ((0, 0), (self.rows, 0), (0, self.columns), (0, 0)))
        return x.reshape(-1, x.shape[-1])

    def lift_last(self, x: Array) -> Array:
        """Takes a strip with features last, `[Z, F]`, back to maps, `[B, H, W, F]`."""
        x = x.reshape(-1, self.rows + self.height, self.width + self.columns, x.shape[-1])
        return x[:, self.rows :, : self.width]

    def neighbours(self, x: Array, taps: Sequence[tuple[int, int]]) -> Array:
        """Concatenates what each tap, an offset (row, column), sees: `[taps * F, Z]`.

        Outside the image that is zero, whatever the gaps of x hold.
        """
        if self.rows or self.columns:
            inside = np.zeros((self.rows + self.height, self.width + self.columns), bool)
            inside[self.rows :, : self.width] = True
            # A constant, unless the number of images is a symbol of `jax.export`.
            tile = np.tile if isinstance(x.shape[1], int) else jnp.tile
            x = jnp.where(tile(inside.reshape(-1), x.shape[1] // inside.size), x, 0)
        steps = [row * (self.width + self.columns) + column for row, column in taps]
        return jnp.concatenate([shift(x, step, axis=1) for step in steps])
