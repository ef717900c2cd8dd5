"""Linear recurrences along rows and columns: a layer sees all that comes earlier."""

from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.kernels import linear
from pixel_rnn_jax.model.layers.body import Context, Layer, Position, State, at_column, put_column
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv

FASTEST, SLOWEST = -0.5, 1.5
"""The first biases of the gates a: a feature keeps 27 % to 95 % of its state at a step."""


class LinearState(NamedTuple):
    """What later pixels see, and the gates from which the row's end computes it."""

    left: Array  # [B, h], the state to the right in the pixel on the left.
    above: Array  # [B, W, 2h], the states down in the row above.
    gates: Array  # [B, W, 6h], of this row so far.


class LinearRNN(Layer):
    """One layer of linear recurrences, h_t = a_t h_{t-1} + (1 - a_t) u_t, of gates a and inputs u.

    Two run along each row, to the right and to the left, and a third down the columns, over the
    states of both. A pixel sees the third one's state in the row above, which is complete, and the
    first one's in the pixel on its left. These are unmasked; its own pixel enters by masked gates.
    """

    narrow = True

    def setup(self) -> None:
        h, groups = self.features, self.mask_groups
        # Six blocks for the recurrences, then two masked ones.
        self.gates = MaskedConv(
            2 * h, h, groups, blocks=8, open_blocks=6, bias_init=_gate_biases, **self.dtypes
        )
        scale = nn.initializers.normal((3 * h) ** -0.5)
        sizes = (3 * h, 2 * h)  # No mask, and no bias, which the gates have.
        self.seen_to_gates = self.param("seen_to_gates", scale, sizes, self.param_dtype)
        if self.condition:  # Its map has no mask.
            self.condition_to_gates = nn.Dense(8 * h, use_bias=False, **self.dtypes)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        gates = self.gates(x)
        if condition is not None:
            gates = gates + self.condition_to_gates(condition)
        gates, own = self._split(gates)
        right, down = linear.sweep(gates)
        return self._out(own, kernels.read_at(down, -1, axis=1), kernels.read_at(right, -1, axis=2))

    def _split(self, gates: Array) -> list[Array]:
        return jnp.split(gates, [6 * self.features], axis=-1)

    def _out(self, own: Array, above: Array, left: Array) -> Array:
        seen = jnp.concatenate([above, left], axis=-1)
        gates = kernels.matmul(seen, self.seen_to_gates, self.dtype)
        if own.shape != gates.shape:  # A step of the first groups; the product is for all steps.
            gates = jnp.concatenate(
                [half[..., : own.shape[-1] // 2] for half in jnp.split(gates, 2, -1)], -1
            )
        gates = own + gates
        gate, content = jnp.split(jnp.tanh(gates), 2, axis=-1)  # Faster than a sigmoid.
        return (0.5 + 0.5 * gate) * content

    def context(self, condition: Array) -> Context:
        return self.condition_to_gates(condition)

    def init_state(self, batch: int, height: int, width: int) -> State:
        h = self.features
        shapes = (h,), (width, 2 * h), (width, 6 * h)
        return LinearState(*(jnp.zeros((batch, *shape), self.param_dtype) for shape in shapes))

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Array, State]:
        _, column = position
        gates = self.gates(x)
        if context is not None:
            gates = gates + self.gates.first_groups(at_column(context, column), x.shape[-1])
        if x.shape[-1] < 2 * self.features:
            return self._out(gates, at_column(state.above, column), state.left), state
        gates, own = self._split(gates)
        a, _, _, u, _ = linear.gates_and_inputs(jnp.tanh(gates))
        out = self._out(own, at_column(state.above, column), state.left)
        left, row = a * state.left + (1 - a) * u, put_column(state.gates, gates, column)
        return out, LinearState(left, state.above, row)

    def end_row(self, state: State, context: Context | None = None) -> State:
        a_right, a_left, a, u_right, u_left = linear.gates_and_inputs(jnp.tanh(state.gates))
        right = linear.along(a_right, u_right, axis=1)
        left = linear.along(a_left, u_left, axis=1, reverse=True)
        u = jnp.concatenate([right, left], axis=-1)
        above = a * state.above + (1 - a) * u
        return LinearState(jnp.zeros_like(state.left), above, state.gates)


def _gate_biases(key: Array, shape: tuple[int, ...], dtype: DTypeLike) -> Array:
    offsets = jnp.linspace(FASTEST, SLOWEST, shape[0] // 8, dtype=dtype)
    return jnp.pad(jnp.tile(offsets, 4), (0, shape[0] // 2))
