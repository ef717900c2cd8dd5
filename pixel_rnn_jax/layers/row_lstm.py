"""Row LSTM: the state is a row, moved from the top of the image to its bottom (section 3.1)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax.layers.conv_lstm import ConvLSTM


class RowLSTM(nn.Module):
    """One Row LSTM layer.

    Attributes:
        features: h.
        channels: C.
        kernel: k, the width of both convolutions, odd and at least 3.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    features: int
    channels: int
    kernel: int = 3
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> Array:
        """Maps `[B, H, W, 2h]` to `[B, H, W, h]`; `context` is a bias of the gates, 4h wide."""
        reach = self.kernel // 2
        lstm = ConvLSTM(
            self.features,
            self.channels,
            kernel_size=(1, self.kernel),
            taps=tuple(range(-reach, reach + 1)),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="lstm",
        )
        rows_first = None if context is None else context.transpose(1, 2, 0, 3)
        return lstm(x.transpose(1, 2, 0, 3), rows_first).transpose(2, 0, 1, 3)
