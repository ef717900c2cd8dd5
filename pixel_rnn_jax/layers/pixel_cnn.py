"""The residual block of PixelCNN (table 1, figure 5)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax.layers.masked_conv import MaskedConv


class PixelCNNLayer(nn.Module):
    """ReLU, 1x1 (2h to h), ReLU, k x k (h to h), ReLU: the block up to its last 1x1 convolution.

    That one, back to 2h, is the same as behind an LSTM layer: see `Residual`.

    Attributes:
        features: h.
        channels: C.
        kernel: k, odd.
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
        """Maps `[B, H, W, 2h]` to `[B, H, W, h]`; `context`, h wide, is added to the k x k map."""

        def conv(side: int, name: str) -> MaskedConv:
            return MaskedConv(
                self.features,
                self.channels,
                kernel_size=(side, side),
                dtype=self.dtype,
                param_dtype=self.param_dtype,
                name=name,
            )

        x = conv(1, "reduce")(nn.relu(x))
        x = conv(self.kernel, "convolve")(nn.relu(x))
        return nn.relu(x if context is None else x + context)
