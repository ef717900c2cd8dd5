"""The linear recurrence h_t = a_t h_{t-1} + b_t, which has no matrix in its loop."""

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax

from pixel_rnn_jax.model.kernels.skew import read_at
from pixel_rnn_jax.model.kernels.varying import varying_alike

UNROLLED = 64
"""The largest number of steps that a CPU's program has one after the other, in place of a loop."""


def linear_recurrence(a: Array, b: Array, *, axis: int, reverse: bool = False) -> Array:
    """Returns h of h_t = a_t h_{t-1} + b_t along an axis, of the shape of a and b.

    h is 0 before the first position, or with `reverse`, which runs from the last one to the first,
    after the last. The gradient of b is the same recurrence the other way.
    """
    run = jax.custom_vjp(lambda a, b: _forward(axis, reverse, a, b)[0])
    run.defvjp(
        functools.partial(_forward, axis, reverse), functools.partial(_backward, axis, reverse)
    )
    return run(*varying_alike((a, b), (a, b)))


def _forward(axis: int, reverse: bool, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    h = _run(a, b, axis, reverse)
    return h, (a, h)


def _backward(
    axis: int, reverse: bool, saved: tuple[Array, Array], gradient: Array
) -> tuple[Array, Array]:
    (a, h), before = saved, 1 if reverse else -1
    db = _run(read_at(a, -before, axis), gradient, axis, not reverse)
    return db * read_at(h, before, axis), db


def _run(a: Array, b: Array, axis: int, reverse: bool) -> Array:
    in_parallel = functools.partial(_in_parallel, axis=axis, reverse=reverse)
    if a.shape[axis] > UNROLLED:
        return in_parallel(a, b)
    in_turn = functools.partial(_in_turn, axis=axis, reverse=reverse)
    return lax.platform_dependent(a, b, cpu=in_turn, default=in_parallel)


def _in_turn(a: Array, b: Array, *, axis: int, reverse: bool) -> Array:
    # No loop: XLA then keeps the state in registers, and no layout is changed for a scan.
    steps = list(range(a.shape[axis]))[:: -1 if reverse else 1]
    h, all_h = None, []
    for t in steps:
        a_t, b_t = (lax.slice_in_dim(x, t, t + 1, axis=axis) for x in (a, b))
        h = b_t if h is None else a_t * h + b_t
        all_h.append(h)
    return jnp.concatenate(all_h[:: -1 if reverse else 1], axis=axis)


def _in_parallel(a: Array, b: Array, *, axis: int, reverse: bool) -> Array:
    # Each of log2(T) rounds doubles the steps that a and b stand for (Hillis and Steele, "Data
    # parallel algorithms", 1986).
    steps = 1
    while steps < a.shape[axis]:
        before = steps if reverse else -steps
        b = b + a * read_at(b, before, axis)
        a = a * read_at(a, before, axis)
        steps *= 2
    return b
