"""The recurrence against a plain loop: values and vector-Jacobian products, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from helpers import reference_kernels as loops
from helpers.random_models import assert_trees_close
from helpers.reference_kernels import FEATURES, assert_agree, random_arguments, values_and_gradients

from pixel_rnn_jax.model.kernels import conv_lstm, restarts

CASES = [  # Taps and restarts.
    ((0,), "first step"),
    ((-1, 0), "every step"),
    ((0, -1), "diagonal"),
    ((-1, 0, 1), "none"),
    ((-2, -1, 0, 1, 2), "random"),
    ((1,), "random"),
    ((-3, 0), "random"),
]

pytestmark = pytest.mark.usefixtures("x64")


def restart_pattern(kind, steps, positions, rng):
    if kind == "none":
        return None
    lag = np.arange(steps)[:, None] - np.arange(positions)[None, :]
    return {
        "random": rng.random((steps, positions)) < 0.4,
        "first step": np.broadcast_to(np.arange(steps)[:, None] == 0, lag.shape),
        "every step": np.ones_like(lag, bool),
        "diagonal": lag % 3 == 0,
    }[kind]


def assert_is_the_loop(function, taps, kind, line, initial=1.0):
    """For a line (T, P, L), and the size of the initial states."""
    rng = np.random.default_rng(0)
    options = dict(taps=taps, restart=restart_pattern(kind, *line[:2], rng))
    run, loop = (functools.partial(f, **options) for f in (function, loops.conv_lstm))
    arguments = random_arguments(rng, *line, taps=len(taps), initial=initial)
    assert_agree(run, loop, arguments, rng)


@pytest.mark.parametrize(("taps", "kind"), CASES, ids=str)
def test_conv_lstm_is_the_loop(taps, kind):
    assert_is_the_loop(conv_lstm, taps, kind, (4, 4, 2))


@pytest.mark.parametrize("line", [(1, 1, 1), (1, 3, 2), (3, 1, 2)])
def test_short_lines_are_the_loop(line):
    assert_is_the_loop(conv_lstm, (-1, 0, 1), "random", line, initial=0.0)


def test_plain_recurrence_of_the_benchmarks_is_the_loop():
    assert_is_the_loop(plain.conv_lstm, (-1, 0, 1), "random", (4, 4, 1))


def test_other_precisions_and_a_forward_pass_without_gradient():
    run = functools.partial(conv_lstm, taps=(0, -1), restart=restarts(5, 3))
    with_gradients = jax.jit(values_and_gradients(run))
    rng = np.random.default_rng(2)
    exact = rng.normal(size=(7, 5, 4, FEATURES)), *random_arguments(rng, 7, 5, 4, taps=2)
    exact = tuple(map(jnp.asarray, exact))
    assert_trees_close(jax.jit(run)(*exact[1:]), with_gradients(*exact)[0])
    for dtype, tolerance in ((jnp.float32, 1e-5), (jnp.bfloat16, 5e-2)):
        # Rounded first, so that the exact answer is the one for the numbers of the kernel.
        inputs = [x.astype(dtype) for x in exact]
        expected = jax.tree.leaves(with_gradients(*(x.astype(jnp.float64) for x in inputs)))
        for x, y in zip(jax.tree.leaves(with_gradients(*inputs)), expected, strict=True):
            assert x.dtype == dtype
            assert np.abs(x.astype(jnp.float64) - y).max() <= tolerance * np.abs(y).max()
        # Gates and states beyond what the activations tell apart.
        cotangent, gates, *state = inputs
        saturated = cotangent, 1e4 * jnp.sign(gates), *(1e4 * x for x in state)
        for x in jax.tree.leaves(with_gradients(*saturated)):
            assert x.dtype == dtype and np.isfinite(x.astype(jnp.float64)).all()


def test_rounded_operands_agree_with_the_loop():
    """States, gates and sums stay as they are; gradients are within the rounding's error."""

    def rounded(x):
        return np.asarray(x).astype(jnp.bfloat16).astype(np.float64)

    rng = np.random.default_rng(3)
    options = dict(taps=(-1, 0, 1), restart=restarts(3, 4))
    arguments = [jnp.asarray(x) for x in random_arguments(rng, 6, 3, 2, taps=3)]
    run = jax.jit(functools.partial(conv_lstm, dtype=jnp.bfloat16, **options))
    loop = functools.partial(loops.conv_lstm, rounded=rounded, **options)
    np.testing.assert_allclose(
        run(*arguments), loop(*map(np.asarray, arguments)), rtol=0, atol=1e-12
    )
    cotangent = jnp.asarray(rng.normal(size=(6, 3, 2, FEATURES)))
    found, exact = (
        jax.jit(values_and_gradients(f))(cotangent, *arguments)[1]
        for f in (run, functools.partial(conv_lstm, **options))
    )
    for x, y in zip(found, exact, strict=True):
        assert x.dtype == jnp.float64
        assert 0 < jnp.linalg.norm(x - y) < 0.02 * jnp.linalg.norm(y)
