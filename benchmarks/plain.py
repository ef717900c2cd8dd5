"""The recurrences as a plain `lax.scan` with JAX's own gradient, to compare the kernels with.

They take and return what `kernels.conv_lstm` and `kernels.linear.sweep` do.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.kernels import linear


def conv_lstm(
    gates: Array,
    kernel: Array,
    h0: Array,
    c0: Array,
    *,
    taps: Sequence[int],
    restart: np.ndarray | None = None,
    dtype: DTypeLike | None = None,
) -> Array:
    """Returns h after each step, `[T, P, L, F]`, of gates `[T, P, L, 4F]`."""
    gates, kernel, h0, c0 = kernels.varying_alike((gates, kernel, h0, c0), (gates, kernel, h0, c0))
    steps, positions, lanes, _ = gates.shape
    flags = jnp.zeros((steps, positions), bool) if restart is None else jnp.asarray(restart)

    def step(carry: Any, inputs: Any) -> Any:
        h, c = carry
        gates_t, restart_t = inputs
        again = restart_t[:, None, None]
        for tap, weight in zip(taps, kernel, strict=True):
            read = kernels.read_at(h, tap, axis=0)
            if tap == 0:
                read = jnp.where(again, h0[None, None], read)
            gates_t = gates_t + kernels.matmul(read, weight, dtype or gates.dtype)
        h, c = kernels.cell(gates_t, jnp.where(again, c0[None, None], c))
        return (h, c), h

    line = (positions, lanes, h0.shape[-1])
    start = jnp.broadcast_to(h0, line), jnp.broadcast_to(c0, line)
    return lax.scan(step, start, (gates, flags))[1]


def sweep(gates: Array) -> tuple[Array, Array]:
    """Returns the states to the right and down of gates `[B, H, W, 6h]`."""
    a_right, a_left, a_down, u_right, u_left = linear.gates_and_inputs(jnp.tanh(gates))
    right, left = _along(a_right, u_right, 2), _along(a_left, u_left, 2, reverse=True)
    return right, _along(a_down, jnp.concatenate([right, left], axis=-1), 1)


def _along(a: Array, u: Array, axis: int, reverse: bool = False) -> Array:
    def step(h: Array, terms: tuple[Array, Array]) -> tuple[Array, Array]:
        a, u = terms
        h = a * h + (1 - a) * u
        return h, h

    terms = jnp.moveaxis(a, axis, 0), jnp.moveaxis(u, axis, 0)
    start = kernels.varying_alike(jnp.zeros_like(terms[0][0]), a)
    return jnp.moveaxis(lax.scan(step, start, terms, reverse=reverse)[1], 0, axis)


def use() -> None:
    """Makes the layers of this process use the plain recurrences from now on."""
    kernels.conv_lstm = conv_lstm
    linear.sweep = sweep  # type: ignore[assignment]
