"""The recurrence of Row LSTM and Diagonal BiLSTM: a convolutional LSTM over a moving line.

The state is a *line* of P positions that crosses the image in T steps. A small convolution along
the line takes it from step to step. All that does not depend on the state (the masked
input-to-state convolution, the bias, the condition) is computed beforehand for the whole map and
comes in as `gates`.

============================  =============  ==========  =========================================
layer                         a line is      T           taps along the line
============================  =============  ==========  =========================================
Row LSTM                      a row          H           -1, 0, +1 of the row above
Diagonal BiLSTM, each side    a diagonal     W + H - 1   0 (own row, column before), -1 (row above)
============================  =============  ==========  =========================================
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from pixel_rnn_jax.model.kernels.matmul import rounded_dot
from pixel_rnn_jax.model.kernels.skew import read_at
from pixel_rnn_jax.model.kernels.varying import varying_alike

Residuals = tuple[Array, Any, Array, Array]


def cell(gates: Array, c: Array) -> tuple[Array, Array]:
    """Advances the LSTM by one step (eq. 3) and returns h and c, both `[..., F]`.

    The gates, `[..., 4F]`, are sums of input-to-state and state-to-state in the order o, f, i, g.
    """
    return _update(_activate(gates), c)


def _activate(gates: Array) -> Array:
    # One tanh over all four gates: sigmoid(x) = (1 + tanh(x / 2)) / 2.
    content = _is_content(gates)
    half = jnp.asarray(0.5, gates.dtype)
    scale = jnp.where(content, 2 * half, half)
    return jnp.tanh(gates * scale) * scale + jnp.where(content, 0, half)


def _is_content(gates: Array) -> Array:
    shape = (1,) * (gates.ndim - 1) + gates.shape[-1:]
    return lax.broadcasted_iota(jnp.int32, shape, gates.ndim - 1) >= 3 * (shape[-1] // 4)


def _update(activated: Array, c: Array) -> tuple[Array, Array]:
    o, f, i, g = jnp.split(activated, 4, axis=-1)
    c = f * c + i * g
    return o * jnp.tanh(c), c


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
    """Runs the recurrence over a whole map and returns h after each step, `[T, P, L, F]`.

    The backward pass is written by hand: a scan in the other direction that carries only dh and dc
    and emits the gradient of the gates. The gradient of the kernel is one matmul over all steps.

    Args:
        gates: `[T, P, L, 4F]`, in the order o, f, i, g: the sums that do not depend on the state.
        kernel: `[taps, F, 4F]`, the state-to-state convolution (unmasked).
        h0: `[F]`, the initial hidden state of every position.
        c0: `[F]`, the initial cell state of every position.
        taps: Offsets along P. At position p, tap o reads position p + o, or zero outside the line.
        restart: `[T, P]` booleans known at compile time, or None. Where True, the initial states
            replace the cell state and the state that tap 0 reads. Other taps read on, since the
            row below needs the state.
        dtype: Type to which the operands of the products are rounded, and the factors that the
            backward pass keeps; by default the gates' type, in which all else is computed.
    """
    dtype = gates.dtype if dtype is None else dtype
    arrays = gates, kernel, h0, c0
    run = jax.custom_vjp(lambda *arrays: _forward(taps, restart, dtype, *arrays, save=False)[0])
    forward = functools.partial(_forward, taps, restart, dtype, save=True)
    run.defvjp(forward, functools.partial(_backward, taps, restart))
    return run(*varying_alike(arrays, arrays))


def _forward(
    taps: Sequence[int],
    restart: np.ndarray | None,
    dtype: DTypeLike,
    gates: Array,
    kernel: Array,
    h0: Array,
    c0: Array,
    *,
    save: bool,
) -> tuple[Array, Residuals]:
    """Returns h, `[T, P, L, F]`, and with `save` what the backward pass needs."""
    steps, positions, lanes, width = gates.shape
    features = width // 4
    line = (positions * lanes, features)
    flat_kernel = kernel.reshape(-1, width).astype(dtype)
    first_h, first_c = h0[None], c0[None]

    def step(carry: Any, inputs: Any) -> Any:
        h, c = carry
        gates_t, restart_t = inputs
        reads = [read_at(h, tap * lanes, axis=0) for tap in taps]
        if restart_t is not None:
            reads = [
                jnp.where(restart_t, first_h, read) if tap == 0 else read
                for tap, read in zip(taps, reads, strict=True)
            ]
            c = jnp.where(restart_t, first_c, c)
        seen = jnp.concatenate(reads, axis=-1).astype(dtype)
        activated = _activate(gates_t + rounded_dot(seen, flat_kernel, (1, 0), gates.dtype))
        h, c_new = _update(activated, c)
        return (h, c_new), (h, _factors(activated, c, c_new).astype(dtype) if save else None)

    start = jnp.broadcast_to(first_h, line), jnp.broadcast_to(first_c, line)
    xs = gates.reshape(steps, positions * lanes, width), _flags(restart, lanes)
    _, (h, factors) = lax.scan(step, start, xs)
    h = h.reshape(steps, positions, lanes, features)
    return h, (h, factors, kernel, h0)


def _factors(activated: Array, c: Array, c_new: Array) -> Array:
    """Returns the factors of the backward pass, `[..., 6F]`, in one array, stored at once.

    The first four give the gradient of the gates: of o from dh, of f, i and g from dc. The fifth
    gives what dh adds to dc, the last the dc of the step before.
    """
    o, f, i, g = jnp.split(activated, 4, axis=-1)
    tanh_c = jnp.tanh(c_new)
    of_gates = [tanh_c * o * (1 - o), c * f * (1 - f), g * i * (1 - i), i * (1 - g * g)]
    return jnp.concatenate([*of_gates, o * (1 - tanh_c * tanh_c), f], axis=-1)


def _flags(restart: np.ndarray | None, lanes: Any) -> np.ndarray | Array | None:
    """Returns the flags of a flat line, `[T, P * L, 1]`."""
    if restart is None:
        return None
    steps, positions = restart.shape
    # A constant, unless the number of lanes is a symbol of `jax.export`.
    broadcast = np.broadcast_to if isinstance(lanes, int) else jnp.broadcast_to
    flags = broadcast(restart[:, :, None], (steps, positions, lanes))
    return flags.reshape(steps, positions * lanes, 1)


def _backward(
    taps: Sequence[int], restart: np.ndarray | None, residuals: Residuals, dh_all: Array
) -> tuple[Array, Array, Array, Array]:
    h_all, factors, kernel, h0 = residuals
    steps, positions, lanes, features = h_all.shape
    line = (positions * lanes, features)
    dtype = factors.dtype
    flat_kernel_t = kernel.reshape(-1, 4 * features).T.astype(dtype)
    flags = _flags(restart, lanes)

    def step(carry: Any, inputs: Any) -> Any:
        # dh, dc: the gradients that later steps give to the state after this one.
        dh, dc = carry
        dout, factor, restart_t = inputs
        dh = dh + dout
        of_gates, of_c, of_c_before = jnp.split(factor, [4 * features, 5 * features], axis=-1)
        dc = dc + dh * of_c
        dgates = jnp.concatenate([dh, dc, dc, dc], axis=-1) * of_gates
        dread = rounded_dot(dgates.astype(dtype), flat_kernel_t, (1, 0), dgates.dtype)
        dreads = jnp.split(dread, len(taps), axis=-1)
        dc_before = dc * of_c_before
        if restart_t is not None:
            dc_before = jnp.where(restart_t, 0, dc_before)
            dreads = [
                jnp.where(restart_t, 0, dread) if tap == 0 else dread
                for tap, dread in zip(taps, dreads, strict=True)
            ]
        dh = sum(
            read_at(dread, -tap * lanes, axis=0) for tap, dread in zip(taps, dreads, strict=True)
        )
        return (dh, dc_before), (dgates, dc)

    zeros = varying_alike(jnp.zeros(line, h_all.dtype), dh_all)
    xs = dh_all.reshape(steps, *line), factors, flags
    (dh, dc), (dgates, dc_all) = lax.scan(step, (zeros, zeros), xs, reverse=True)
    dh0, dc0 = dh.sum(0), dc.sum(0)

    h_before = h_all.reshape(steps, *line)[:-1]
    h_before = jnp.concatenate([jnp.broadcast_to(h0, (1, *line)), h_before])
    reads = [read_at(h_before, tap * lanes, axis=1) for tap in taps]
    if restart is not None and flags is not None:
        places = np.nonzero(restart)

        def restarted(x: Array) -> Array:  # [T, P * L, F] to [restarts, L, F]
            return x.reshape(steps, positions, lanes, x.shape[-1])[places]

        dc0 = dc0 + (restarted(dc_all) * restarted(factors[..., 5 * features :])).sum((0, 1))
        if 0 in taps:
            tap = taps.index(0)
            reads[tap] = jnp.where(flags, h0[None, None], reads[tap])
            dh0 = dh0 + restarted(dgates).sum((0, 1)) @ kernel[tap].T
    seen = jnp.concatenate(reads, axis=-1).astype(dtype)
    dkernel = jnp.einsum(
        "tnf,tng->fg", seen, dgates.astype(dtype), preferred_element_type=dgates.dtype
    )
    dgates = dgates.reshape(steps, positions, lanes, 4 * features)
    return dgates, dkernel.reshape(kernel.shape), dh0, dc0
