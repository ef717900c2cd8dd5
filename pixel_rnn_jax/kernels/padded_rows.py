"""Padded rows: the pixels of a batch in one long row, features first, `[F, Z]`.

In this layout every 1x1 convolution is one matmul with a long contiguous axis, and a tap of a
larger kernel sees one slice: zeros follow each row of an image and precede each image, as far as a
tap reaches. On CPUs the copies for the taps, and the matmuls of the gradient, take half the time
that they take with features last.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax.kernels.skew import shift


class PaddedRows(NamedTuple):
    """The layout of images of one size: Z = B * (halo_rows + H) * (W + halo_columns).

    Attributes:
        height: H.
        width: W.
        halo_rows: Rows of zeros before each image: how far up a tap reaches.
        halo_columns: Zeros after each row: how far left or right a tap reaches.
    """

    height: int
    width: int
    halo_rows: int = 0
    halo_columns: int = 0

    def pack(self, x: Array, *, features_last: bool = False) -> Array:
        """Pads `[F, B, H, W]` to `[F, Z]`, or with `features_last` `[B, H, W, F]` to `[Z, F]`."""
        rows, columns = (self.halo_rows, 0), (0, self.halo_columns)
        if features_last:
            return jnp.pad(x, ((0, 0), rows, columns, (0, 0))).reshape(-1, x.shape[-1])
        return jnp.pad(x, ((0, 0), (0, 0), rows, columns)).reshape(len(x), -1)

    def unpack(self, x: Array, *, features_last: bool = False) -> Array:
        """Takes the result of `pack` back to maps."""
        rows, columns = self.halo_rows + self.height, self.width + self.halo_columns
        if features_last:
            x = x.reshape(-1, rows, columns, x.shape[-1])
            return x[:, self.halo_rows :, : self.width]
        return x.reshape(len(x), -1, rows, columns)[:, :, self.halo_rows :, : self.width]

    def neighbours(self, x: Array, taps: Sequence[tuple[int, int]]) -> Array:
        """Concatenates x, `[F, Z]`, as seen by each tap, an offset (row, column): `[taps * F, Z]`.

        Taps see zeros outside the image, whatever the padding of x holds.
        """
        rows, columns = self.halo_rows + self.height, self.width + self.halo_columns
        if self.halo_rows or self.halo_columns:
            inside = np.zeros((rows, columns), bool)
            inside[self.halo_rows :, : self.width] = True
            # A constant, unless the number of images is a symbol of `jax.export`.
            tile = np.tile if isinstance(x.shape[1], int) else jnp.tile
            x = jnp.where(tile(inside.reshape(-1), x.shape[1] // inside.size), x, 0)
        return jnp.concatenate([shift(x, row * columns + column, axis=1) for row, column in taps])
