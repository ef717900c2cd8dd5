"""Diagonal BiLSTM: the state is a diagonal, moved from either upper corner (section 3.2)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax import kernels
from pixel_rnn_jax.layers.conv_lstm import ConvLSTM


class DiagonalBiLSTM(nn.Module):
    """One Diagonal BiLSTM layer.

    The second direction works on the map flipped left-right *before* it is skewed; its output is
    shifted down by one row, so that it adds only what lies in complete rows above. Each row starts
    from the learned initial state at its first column (in a literal skewing, the state would first
    evolve over the padding).

    Attributes:
        features: h of each direction.
        channels: C.
        pack: images that a lane of the scan holds side by side (see `kernels.skew`); must divide
            the batch. More of them is less work in more steps.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    features: int
    channels: int
    pack: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Maps `[B, H, W, 2h]` to `[B, H, W, h]`; `context` is a bias of the gates, 4h wide."""
        left = self._direction("left", x, context)
        flipped = None if context is None else context[:, :, ::-1]
        right = self._direction("right", x[:, :, ::-1], flipped)[:, :, ::-1]
        return left + shift_down(right)

    def _direction(self, name: str, x: Array, context: Array | None) -> Array:
        height, width = x.shape[1:3]
        lstm = ConvLSTM(
            self.features,
            self.channels,
            kernel_size=(1, 1),
            taps=(0, -1),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )
        h = lstm(
            kernels.skew(x, pack=self.pack),
            None if context is None else kernels.skew(context, pack=self.pack),
            restart=kernels.restarts(height, width, pack=self.pack),
        )
        return kernels.unskew(h, width=width, pack=self.pack)


def shift_down(x: Array) -> Array:
    """Moves `[B, H, W, F]` down by one row; the first row becomes zero."""
    return kernels.shift(x, -1, axis=1)
