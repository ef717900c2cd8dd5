"""What stands around every body layer: residual and skip connections (section 3.3, figure 5)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax.layers.masked_conv import MaskedConv


class Residual(nn.Module):
    """A body layer from stream to stream.

    A 1x1 convolution with mask B takes the h features of the layer to the 2h of the stream and, as
    a second block of the same matmul, to the 2h of the skip connection.

    Attributes:
        layer: maps `[B, H, W, 2h]` and a context to `[B, H, W, h]`.
        channels: C.
        residual: whether the input is added to the output.
        skip: whether there is a skip connection to the head.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    layer: nn.Module
    channels: int
    residual: bool = True
    skip: bool = True
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array, context: Array | None = None) -> tuple[Array, Array | None]:
        """Returns the stream after the layer and what skips to the head, both `[B, H, W, 2h]`."""
        out = MaskedConv(
            x.shape[-1],
            self.channels,
            parts=2 if self.skip else 1,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="expand",
        )(self.layer(x, context))
        stream, skip = jnp.split(out, 2, axis=-1) if self.skip else (out, None)
        return (x + stream if self.residual else stream), skip
