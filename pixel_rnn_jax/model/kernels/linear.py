"""Linear recurrences, h_t = a_t h_{t-1} + (1 - a_t) u_t, along the rows and columns of a map.

a and u depend on the input alone, so that no loop has a matrix in it, and steps can be parallel.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pixel_rnn_jax.model.kernels.skew import read_at

UNROLLED = 64
"""The largest number of steps that a CPU's program has one after the other."""


@jax.custom_vjp
def sweep(gates: Array) -> tuple[Array, Array]:
    """Runs along each row to the right and to the left, then down the columns over both states.

    Maps gates, `[B, H, W, 6h]`, of `gates_and_inputs`, to the states to the right, `[B, H, W, h]`,
    and down, `[B, H, W, 2h]`. All start at 0. The backward pass is written by hand: the recurrences
    run the other way. It keeps the activated gates and the states alone.
    """
    return _forward(gates)[0]


def gates_and_inputs(z: Array) -> list[Array]:
    """Splits tanh(gates) into a_right, a_left `[h]`, a_down `[2h]`, u_right, u_left `[h]`.

    Each a is (1 + tanh) / 2.
    """
    h = z.shape[-1] // 6
    *a, u_right, u_left = jnp.split(z, np.cumsum([h, h, 2 * h, h]), axis=-1)
    return [*(0.5 + 0.5 * x for x in a), u_right, u_left]


def along(a: Array, u: Array, *, axis: int, reverse: bool = False) -> Array:
    """Returns the states of one recurrence along an axis, from its end with `reverse`."""
    return _run(a, u - a * u, axis, reverse)


def _forward(gates: Array) -> tuple[tuple[Array, Array], tuple[Array, ...]]:
    z = jnp.tanh(gates)
    a_right, a_left, a_down, u_right, u_left = gates_and_inputs(z)
    right = along(a_right, u_right, axis=2)
    left = along(a_left, u_left, axis=2, reverse=True)
    down = along(a_down, jnp.concatenate([right, left], axis=-1), axis=1)
    return (right, down), (z, right, left, down)


def _backward(saved: tuple[Array, ...], gradients: tuple[Array, Array]) -> tuple[Array]:
    (z, right, left, down), (dright, ddown) = saved, gradients
    a_right, a_left, a_down, u_right, u_left = gates_and_inputs(z)
    both = jnp.concatenate([right, left], axis=-1)
    da_down, dboth = _gradients(a_down, both, down, ddown, axis=1)
    dright_of_down, dleft = jnp.split(dboth, 2, axis=-1)
    dright = dright + dright_of_down
    da_right, du_right = _gradients(a_right, u_right, right, dright, axis=2)
    da_left, du_left = _gradients(a_left, u_left, left, dleft, axis=2, reverse=True)
    dz = jnp.concatenate([da_right, da_left, da_down, 2 * du_right, 2 * du_left], axis=-1)
    return (dz * (0.5 - 0.5 * z * z),)


sweep.defvjp(_forward, _backward)


def _gradients(
    a: Array, u: Array, h: Array, dh: Array, *, axis: int, reverse: bool = False
) -> tuple[Array, Array]:
    """Returns the gradients of a and u of `along`, whose states were h."""
    before = 1 if reverse else -1
    db = _run(read_at(a, -before, axis), dh, axis, not reverse)
    return db * (read_at(h, before, axis) - u), db - db * a


def _run(a: Array, b: Array, axis: int, reverse: bool) -> Array:
    """Returns h of h_t = a_t h_{t-1} + b_t."""
    forms = (functools.partial(f, axis=axis, reverse=reverse) for f in (_in_turn, _in_parallel))
    in_turn, in_parallel = forms
    if a.shape[axis] > UNROLLED:
        return in_parallel(a, b)
    return lax.platform_dependent(a, b, cpu=in_turn, default=in_parallel)


def _in_turn(a: Array, b: Array, *, axis: int, reverse: bool) -> Array:
    # Without a loop XLA keeps the state in registers, and the axis of the steps stays in its place.
    h, states = None, []
    for t in range(a.shape[axis])[:: -1 if reverse else 1]:
        a_t, b_t = (lax.slice_in_dim(x, t, t + 1, axis=axis) for x in (a, b))
        h = b_t if h is None else a_t * h + b_t
        states.append(h)
    return jnp.concatenate(states[:: -1 if reverse else 1], axis=axis)


def _in_parallel(a: Array, b: Array, *, axis: int, reverse: bool) -> Array:
    # After round i, (a, b) at t is the composition of the last 2^i steps (Hillis and Steele, "Data
    # parallel algorithms", 1986).
    steps = 1
    while steps < a.shape[axis]:
        before = steps if reverse else -steps
        b = b + a * read_at(b, before, axis)
        a = a * read_at(a, before, axis)
        steps *= 2
    return b
