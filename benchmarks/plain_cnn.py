"""NetKet's `FastARNNConv2D` as a body and a head of this package: masked convolutions, and no more.

Each is 3x3 with 2h features, between SELUs; the last one is 1x1 here, after a ReLU, and 3x3 there.
"""

from typing import Any

import flax.linen as nn
from jax import Array

from pixel_rnn_jax.model.layers import BODIES, HEADS, Head, MaskedConv
from pixel_rnn_jax.model.layers.body import Body, Context, Position, State


class PlainCNN(Body):
    """All convolutions but the first and the last; without a condition."""

    layers: int = 7

    def setup(self) -> None:
        """Declares them."""
        sizes, side = (2 * self.features, 2 * self.features, self.mask_groups), (3, 3)
        self.convs = [MaskedConv(*sizes, "B", side, **self.dtypes) for _ in range(self.layers - 2)]

    def __call__(
        self, x: Array, condition: Array | None = None, dropout_keys: Array | None = None
    ) -> Array:
        """Maps `[B, H, W, 2h]` to `[B, H, W, 2h]`."""
        for conv in self.convs:
            x = conv(nn.selu(x))
        return x

    def init_state(self, batch: int, height: int, width: int) -> State:
        """Returns the states of all convolutions."""
        return [conv.init_state(batch, height, width) for conv in self.convs]

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Array, State]:
        """Maps one pixel."""
        after = []
        for conv, of_conv in zip(self.convs, state, strict=True):
            x, of_conv = conv.step(of_conv, nn.selu(x), position)
            after.append(of_conv)
        return x, after

    def end_row(self, state: State, context: Context | None = None) -> State:
        """Moves on to the next row."""
        return [conv.end_row(of_conv) for conv, of_conv in zip(self.convs, state, strict=True)]


class Last(Head):
    """The last convolution alone, after a ReLU."""

    def setup(self) -> None:
        """Declares it."""
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        self.head: list[MaskedConv] = []
        self.logits = MaskedConv(2 * self.features, self.outputs, self.mask_groups, **types)


BODIES["plain_cnn"] = PlainCNN
HEADS["last"] = Last
