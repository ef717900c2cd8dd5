"""Linear recurrences along rows and columns: a layer sees all that comes earlier."""

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers.body import Context, Layer, State, at_column, put_column
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv

FASTEST, SLOWEST = -1.0, 3.0
"""The offsets of a feature's gates: at first, a step keeps 27 % to 95 % of a state."""


class LinearRNN(Layer):
    """One layer of linear recurrences, h_t = a_t h_{t-1} + (1 - a_t) u_t, with gates of the input.

    Two run along each row, to the right and to the left, and a third down the columns, over the
    states of both. A pixel sees the third one's state in the row above, which is complete, and the
    first one's in the pixel on its left. These are unmasked; its own pixel enters by masked gates.
    """

    def setup(self) -> None:
        h, groups = self.features, self.mask_groups
        # The blocks: a of right, left and down (two), u of right and left, then the masked ones.
        self.gates = MaskedConv(2 * h, h, groups, blocks=8, open_blocks=6, **self.dtypes)
        scale = nn.initializers.normal((3 * h) ** -0.5)
        sizes = (3 * h, 2 * h)  # No mask, and no bias, which the gates have.
        self.seen_to_gates = self.param("seen_to_gates", scale, sizes, self.param_dtype)
        if self.condition:  # Its map has no mask.
            self.condition_to_gates = nn.Dense(8 * h, use_bias=False, **self.dtypes)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        gates = self.gates(x)
        if condition is not None:
            gates = gates + self.condition_to_gates(condition)
        *terms, own = self._terms(gates)
        right, (a, b) = self._rows(*terms, axis=2)
        down = kernels.linear_recurrence(a, b, axis=1)
        return self._out(own, kernels.read_at(down, -1, axis=1), kernels.read_at(right, -1, axis=2))

    def _terms(self, gates: Array) -> tuple[Array, Array, Array]:
        """Splits gates, `[..., 8h]`, into a, `[..., 4h]`, u and the masked ones, `[..., 2h]`."""
        h = self.features
        offset = np.pad(np.tile(np.linspace(FASTEST, SLOWEST, h), 4), (0, 2 * h))
        open_, own = jnp.split(gates, [6 * h], axis=-1)
        a, u = _sigmoid_and_tanh(open_, 4 * h, offset)
        return a, u, own

    def _rows(self, a: Array, u: Array, *, axis: int) -> tuple[Array, tuple[Array, Array]]:
        """Returns the states to the right, `[..., h]`, and a and b of the columns, `[..., 2h]`."""
        a, a_down = jnp.split(a, 2, axis=-1)
        (a_right, a_left), (right, left) = (jnp.split(x, 2, axis=-1) for x in (a, u - a * u))
        right = kernels.linear_recurrence(a_right, right, axis=axis)
        left = kernels.linear_recurrence(a_left, left, axis=axis, reverse=True)
        both = jnp.concatenate([right, left], axis=-1)
        return right, (a_down, both - a_down * both)

    def _out(self, own: Array, above: Array, left: Array) -> Array:
        seen = jnp.concatenate([above, left], axis=-1)
        gates = own + kernels.matmul(seen, self.seen_to_gates, self.dtype)
        gate, content = _sigmoid_and_tanh(gates, self.features)
        return gate * content

    def context(self, condition: Array) -> Context:
        return self.condition_to_gates(condition)

    def init_state(self, batch: int, height: int, width: int) -> State:
        h = self.features
        shapes = {
            "left": (h,),  # The right direction's state in the pixel on the left.
            "above": (width, 2 * h),  # The state of the columns in the row above.
            "gates": (width, 8 * h),  # Of this row so far.
        }
        return {n: jnp.zeros((batch, *s), self.param_dtype) for n, s in shapes.items()}

    def step(
        self, state: State, x: Array, column: ArrayLike, context: Context | None = None
    ) -> tuple[Array, State]:
        gates, _ = self.gates.step({}, x, column)
        if context is not None:
            gates = gates + at_column(context, column)
        a, u, own = self._terms(gates)
        a, u = a[:, : self.features], u[:, : self.features]
        out = self._out(own, at_column(state["above"], column), state["left"])
        return out, state | {
            "left": a * state["left"] + u - a * u,
            "gates": put_column(state["gates"], gates, column),
        }

    def end_row(self, state: State, context: Context | None = None) -> State:
        a, u, _ = self._terms(state["gates"])
        _, (a, b) = self._rows(a, u, axis=1)
        left = jnp.zeros_like(state["left"])
        return state | {"left": left, "above": a * state["above"] + b}


def _sigmoid_and_tanh(
    gates: Array, split: int, offset: np.ndarray | float = 0.0
) -> tuple[Array, Array]:
    """Splits `[..., F]` in two and returns the sigmoid of the first part and tanh of the second."""
    # One tanh over all: sigmoid(x) = (1 + tanh(x / 2)) / 2.
    is_first = np.arange(gates.shape[-1]).reshape((1,) * (gates.ndim - 1) + (-1,)) < split
    offset = np.broadcast_to(offset, is_first.shape)
    scale = jnp.asarray(np.where(is_first, 0.5, 1), gates.dtype)
    first, second = jnp.split(
        jnp.tanh((gates + jnp.asarray(offset, gates.dtype)) * scale), [split], axis=-1
    )
    return 0.5 + 0.5 * first, second
