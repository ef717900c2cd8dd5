"""Gated PixelCNN: two stacks, which together see all that comes earlier, without a blind spot.

van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu, "Conditional Image Generation
with PixelCNN Decoders", 2016 (arXiv 1606.05328), section 2 and figure 2.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers.body import Context, Position, State, at_column, put_column
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv
from pixel_rnn_jax.model.layers.stack import ResidualBody


class GatedState(NamedTuple):
    """What later pixels see of both stacks, in lists with an entry for each layer."""

    x: Array  # [B, W, 2h], the stream in this row so far.
    left: list[Any]  # The states of the horizontal convolutions.
    rows: list[Array]  # [B, k // 2, W, F], the last inputs of the vertical convolutions.
    across: list[Array]  # [B, W, 2h], their terms in this row.


class GatedPixelCNN(ResidualBody):
    """A vertical stack over complete rows above, and a horizontal one along the row.

    The horizontal stack is the stream, with residual and skip connections. The vertical one, of h
    features, begins with the stream shifted down by a row; its convolutions need no mask. In each
    layer the gates of the vertical stack are added to the horizontal one's. `kernel` is k, odd.

    The fields are `ModelConfig`'s.
    """

    kernel: int = 3

    def setup(self) -> None:
        super().setup()
        h, groups, half, numbers = self.features, self.mask_groups, self.kernel // 2, self.layers
        window = [(row, col) for row in range(-half, 1) for col in range(-half, half + 1)]
        gates, row = dict(blocks=2, **self.dtypes), (1, self.kernel)
        self.vertical = [
            MaskedConv(h if i else 2 * h, h, 1, taps=tuple(window), **gates) for i in range(numbers)
        ]
        self.across = [MaskedConv(2 * h, h, 1, **gates) for _ in range(numbers)]
        self.horizontal = [
            MaskedConv(2 * h, h, groups, kernel_size=row, **gates) for _ in range(numbers)
        ]
        if self.condition:
            # Terms for the input of the vertical stack, and for the gates of each layer.
            sizes = 2 * h, *([2 * h] * numbers)
            self.condition_to = [nn.Dense(size, use_bias=False, **self.dtypes) for size in sizes]

    def __call__(
        self, x: Array, condition: Array | None = None, dropout_keys: Array | None = None
    ) -> Array:
        first, *terms = self._terms(condition)

        def block(body: GatedPixelCNN, i: int, x: Array, down: Array) -> tuple[Array, Array]:
            gates = body.vertical[i](down)
            across = body.horizontal[i](x) + body.across[i](gates)
            return _gated(across if terms[i] is None else across + terms[i]), _gated(gates)

        down = kernels.read_at(x if first is None else x + first, -1, axis=1)
        return self.connect(block, x, down, dropout_keys, remat=self.remat)[0]

    def _terms(self, condition: Array | None) -> Context:
        if condition is None:
            return [None] * (self.layers + 1)
        return [dense(condition) for dense in self.condition_to]

    def context(self, condition: Array) -> Context:
        return self._terms(condition)

    def init_state(self, batch: int, height: int, width: int) -> State:
        half = self.kernel // 2
        x = jnp.zeros((batch, width, 2 * self.features), self.param_dtype)
        rows = [
            jnp.zeros((batch, half, width, conv.inputs), self.param_dtype) for conv in self.vertical
        ]
        left = [conv.init_state(batch, height, width) for conv in self.horizontal]
        return GatedState(x, left, *self._next_row(rows, x))

    def _next_row(self, rows: list[Array], down: Array) -> tuple[list[Array], list[Array]]:
        """Moves the vertical stack to a row, of which `down`, `[B, W, 2h]`, is the one above.

        Returns the state's `rows` and `across`.
        """
        terms, after = [], []
        for i in range(self.layers):
            seen = jnp.concatenate([rows[i], down[:, None]], axis=1)
            gates = self.vertical[i].last_row(seen)
            terms.append(self.across[i](gates))
            after.append(seen[:, 1:])
            down = _gated(gates)
        return after, terms

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Array, State]:
        _, column = position

        def block(body: GatedPixelCNN, i: int, x: Array, after: list[State]) -> tuple[Array, Any]:
            gates, left = body.horizontal[i].step(state.left[i], x, position)
            gates = gates + at_column(state.across[i], column)
            if context is not None:
                gates = gates + at_column(context[i + 1], column)
            return _gated(gates), [*after, left]

        row = put_column(state.x, x, column)
        x, left = self.connect(block, x, [])
        return x, state._replace(x=row, left=left)

    def end_row(self, state: State, context: Context | None = None) -> State:
        down = state.x if context is None else state.x + context[0]
        return GatedState(state.x, state.left, *self._next_row(state.rows, down))


def _gated(gates: Array) -> Array:
    a, b = jnp.split(gates, 2, axis=-1)
    return jnp.tanh(a) * nn.sigmoid(b)
