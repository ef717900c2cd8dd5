"""Residual and skip connections around a body layer (section 3.3, figure 5)."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.layers.body import BodyLayer, Context, State
from pixel_rnn_jax.layers.masked_conv import MaskedConv


class Residual(nn.Module):
    """A body layer as a map of the stream.

    A 1x1 convolution with mask B takes the h features of the layer to the 2h of the stream and, as
    a second block of the same matmul, to the 2h of the skip connection.

    The other fields are `ModelConfig`'s.
    """

    layer: BodyLayer
    residual: bool = True
    skip: bool = True
    dropout: float = 0.0

    def setup(self) -> None:
        h, groups, blocks = self.layer.features, self.layer.mask_groups, 2 if self.skip else 1
        self.expand = MaskedConv(h, 2 * h, groups, blocks=blocks, **self.layer.dtypes)

    def __call__(
        self, x: Array, condition: Array | None = None, keys: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Returns the stream after the layer and the skip connection, both `[B, H, W, 2h]`.

        `keys` has one for each image, `[B]`, if there is dropout: what is zeroed in an image does
        not depend on the others of its batch.
        """
        out = self.layer(x, condition)
        if keys is not None and self.dropout:
            out = self._dropped(out, keys)
        return self._connect(x, self.expand(out))

    def _dropped(self, x: Array, keys: Array) -> Array:
        # Of 16 bits: half as many to draw as for a float32.
        bits = jax.vmap(lambda key: jax.random.bits(key, x.shape[1:], jnp.uint16))(keys)
        dropped = round(self.dropout * 2**16)
        return jnp.where(bits >= dropped, x / (1 - dropped / 2**16), 0)

    def step(
        self, state: State, x: Array, column: ArrayLike, context: Context | None = None
    ) -> tuple[tuple[Array, Array | None], State]:
        """As `__call__`, for one pixel: both results are `[B, 2h]`."""
        out, state = self.layer.step(state, x, column, context)
        out, _ = self.expand.step({}, out, column)
        return self._connect(x, out), state

    def _connect(self, x: Array, out: Array) -> tuple[Array, Array | None]:
        stream, skip = jnp.split(out, 2, axis=-1) if self.skip else (out, None)
        return (x + stream if self.residual else stream), skip
