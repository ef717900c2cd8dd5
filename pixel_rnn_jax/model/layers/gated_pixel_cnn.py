"""Gated PixelCNN: two stacks, which together see all that comes earlier, without a blind spot.

van den Oord, Kalchbrenner, Vinyals, Espeholt, Graves, Kavukcuoglu, "Conditional Image Generation
with PixelCNN Decoders", 2016 (arXiv 1606.05328), section 2 and figure 2.
"""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers.body import Body, Context, State, at_column, put_column
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv
from pixel_rnn_jax.model.layers.stack import Residual, add_skips


class GatedPixelCNN(Body):
    """A vertical stack over complete rows above, and a horizontal one along the row.

    The horizontal stack is the stream, with residual and skip connections. The vertical one, of h
    features, begins with the stream shifted down by a row; its convolutions need no mask. In each
    layer the gates of the vertical stack are added to the horizontal one's. `kernel` is k, odd.

    The fields are `ModelConfig`'s.
    """

    layers: int = 7
    kernel: int = 3
    residual: bool = True
    skip: bool = True
    dropout: float = 0.0
    remat: bool = False

    def setup(self) -> None:
        h, groups, half, numbers = self.features, self.mask_groups, self.kernel // 2, self.layers
        window = [(row, col) for row in range(-half, 1) for col in range(-half, half + 1)]
        gates, row = dict(blocks=2, **self.dtypes), (1, self.kernel)
        how = self.residual, self.skip, self.dropout
        self.vertical = [
            MaskedConv(h if i else 2 * h, h, 1, taps=tuple(window), **gates) for i in range(numbers)
        ]
        self.across = [MaskedConv(2 * h, h, 1, **gates) for _ in range(numbers)]
        self.horizontal = [
            MaskedConv(2 * h, h, groups, kernel_size=row, **gates) for _ in range(numbers)
        ]
        self.connect = [Residual(h, groups, i, *how, **self.dtypes) for i in range(numbers)]
        if self.condition:
            # Terms for the input of the vertical stack, and for the gates of each layer.
            sizes = 2 * h, *([2 * h] * numbers)
            self.condition_to = [nn.Dense(size, use_bias=False, **self.dtypes) for size in sizes]

    def __call__(
        self, x: Array, condition: Array | None = None, dropout_keys: Array | None = None
    ) -> Array:
        terms = self._terms(condition)
        down = kernels.read_at(x if terms[0] is None else x + terms[0], -1, axis=1)
        skips = []
        for i in range(self.layers):

            def block(body: GatedPixelCNN, *arguments: Any, i: int = i) -> Any:
                down, x, term, keys = arguments
                gates = body.vertical[i](down)
                across = body.horizontal[i](x) + body.across[i](gates)
                out = _gated(across if term is None else across + term)
                return _gated(gates), *body.connect[i](x, out, keys)

            block = nn.remat(block) if self.remat else block
            down, x, skip = block(self, down, x, terms[i + 1], dropout_keys)
            skips.append(skip)
        return add_skips(x, skips)

    def _terms(self, condition: Array | None) -> Context:
        if condition is None:
            return [None] * (self.layers + 1)
        return [dense(condition) for dense in self.condition_to]

    def context(self, condition: Array) -> Context:
        return self._terms(condition)

    def init_state(self, batch: int, height: int, width: int) -> State:
        # `x`, `[B, W, 2h]`, the stream in this row so far; `rows`, the last inputs of each vertical
        # convolution, `[B, k // 2, W, F]`, and `across`, `[B, W, 2h]`, their terms in this row.
        half = self.kernel // 2
        x = jnp.zeros((batch, width, 2 * self.features), self.param_dtype)
        rows = [
            jnp.zeros((batch, half, width, conv.inputs), self.param_dtype) for conv in self.vertical
        ]
        left = [conv.init_state(batch, height, width) for conv in self.horizontal]
        return {"x": x, "left": left} | self._next_row(rows, x)

    def _next_row(self, rows: list[Array], down: Array) -> State:
        """Moves the vertical stack to a row, of which `down`, `[B, W, 2h]`, is the one above."""
        terms, after = [], []
        for i in range(self.layers):
            seen = jnp.concatenate([rows[i], down[:, None]], axis=1)
            gates = self.vertical[i].last_row(seen)
            terms.append(self.across[i].step({}, gates, 0)[0])
            after.append(seen[:, 1:])
            down = _gated(gates)
        return {"rows": after, "across": terms}

    def step(
        self, state: State, x: Array, column: ArrayLike, context: Context | None = None
    ) -> tuple[Array, State]:
        skips, left, row = [], [], put_column(state["x"], x, column)
        for i in range(self.layers):
            gates, after = self.horizontal[i].step(state["left"][i], x, column)
            gates = gates + at_column(state["across"][i], column)
            if context is not None:
                gates = gates + at_column(context[i + 1], column)
            x, skip = self.connect[i](x, _gated(gates))
            skips.append(skip)
            left.append(after)
        return add_skips(x, skips), state | {"x": row, "left": left}

    def end_row(self, state: State, context: Context | None = None) -> State:
        down = state["x"] if context is None else state["x"] + context[0]
        return state | self._next_row(state["rows"], down)


def _gated(gates: Array) -> Array:
    a, b = jnp.split(gates, 2, axis=-1)
    return jnp.tanh(a) * nn.sigmoid(b)
