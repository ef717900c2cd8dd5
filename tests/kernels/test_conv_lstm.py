"""The recurrence against a plain loop: values and vector-Jacobian products, in float64."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
import reference_kernels as loops
from random_models import assert_trees_close
from reference_kernels import (
    FEATURES,
    assert_agree,
    random_arguments,
    values_and_gradients,
)

from pixel_rnn_jax.kernels import cell, conv_lstm, restarts

TAPS = [(0,), (-1, 0), (0, -1), (-1, 0, 1), (-2, -1, 0, 1, 2), (1,), (-3, 0)]
RESTARTS = ["none", "random", "first step", "every step", "diagonal"]
# (T, P, L), and how large the initial states are.
SOME = [((7, 5, 3), 1.0), ((1, 1, 3), 1.0), ((1, 5, 3), 1.0), ((2, 2, 1), 0.0)]
ALL = [*itertools.product(itertools.product([1, 2, 7], [1, 2, 5], [1, 3]), [0.0, 1.0])]

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def eager():
    """Runs scans as Python loops: the grid is large, and every case of it would compile anew."""
    with jax.disable_jit():
        yield


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


def assert_is_the_loop(function, taps, kind, line, initial=1.0, *, compiled=False):
    rng = np.random.default_rng(0)
    options = dict(taps=taps, restart=restart_pattern(kind, *line[:2], rng))
    run, loop = (functools.partial(f, **options) for f in (function, loops.conv_lstm))
    arguments = random_arguments(rng, *line, taps=len(taps), initial=initial)
    assert_agree(run, loop, arguments, rng, compiled=compiled)


@pytest.mark.parametrize(
    "lines", [pytest.param(SOME, id="some"), pytest.param(ALL, id="all", marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("kind", RESTARTS)
@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_conv_lstm_is_the_loop(eager, taps, kind, lines):
    for line, initial in lines:
        assert_is_the_loop(conv_lstm, taps, kind, line, initial)


@pytest.mark.parametrize("function", [conv_lstm, plain.conv_lstm])
@pytest.mark.parametrize(
    ("taps", "kind"),
    [((-1, 0), "none"), ((-2, -1, 0, 1, 2), "random"), ((1,), "every step")],
    ids=str,
)
def test_compiled_scan_is_the_loop(function, taps, kind):
    assert_is_the_loop(function, taps, kind, (7, 5, 1), compiled=True)


def diagonal_inputs(seed):
    """A cotangent of h, and arguments of a `conv_lstm` as the Diagonal BiLSTM uses it."""
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(7, 5, 4, FEATURES)), *random_arguments(rng, 7, 5, 4, taps=2)
    return tuple(map(jnp.asarray, inputs))


def test_other_precisions_and_a_forward_pass_without_gradient():
    run = functools.partial(conv_lstm, taps=(0, -1), restart=restarts(5, 3))
    with_gradients = jax.jit(values_and_gradients(run))
    exact = diagonal_inputs(2)
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


def test_shapes_that_do_not_fit_are_refused():
    gates, kernel, h0, c0 = random_arguments(np.random.default_rng(7), 4, 3, 2, taps=2)
    wrong = np.zeros((3, 4), bool)
    for c, taps, restart in ((c0, (-1, 0, 1), None), (c0[:1], (0, -1), None), (c0, (0, -1), wrong)):
        with pytest.raises(ValueError, match="gates"):
            conv_lstm(gates, kernel, h0, c, taps=taps, restart=restart)


def test_restarts_of_one_shape_are_told_apart_when_compiled():
    arguments = random_arguments(np.random.default_rng(7), 4, 3, 2, taps=1)
    early, late = np.zeros((2, 4, 3), bool)
    early[1], late[2] = True, True
    compiled = jax.jit(lambda *a: [conv_lstm(*a, taps=(0,), restart=r) for r in (early, late)])
    for result, restart in zip(compiled(*arguments), (early, late), strict=True):
        expected = loops.conv_lstm(*arguments, taps=(0,), restart=restart)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


def test_cell_is_equation_3():
    rng = np.random.default_rng(8)
    arguments = rng.normal(size=4 * FEATURES), rng.normal(size=FEATURES)
    for n in range(2):
        run, loop = (lambda *a, n=n, f=f: f(*a)[n] for f in (cell, loops.cell))
        assert_agree(run, loop, arguments, rng)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cell_saturates(dtype):
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=5)))  # of o, f, i, g and c
    gates, c = jnp.asarray(1e4 * signs[:, :4], dtype), jnp.asarray(1e4 * signs[:, 4:], dtype)
    (h, after), vjp = jax.vjp(cell, gates, c)
    o, f, i = (signs[:, n : n + 1] > 0 for n in range(3))
    exact = f * c.astype(jnp.float64) + i * signs[:, 3:4]
    tolerance = float(jnp.finfo(dtype).eps)
    for found, expected in ((after, exact), (h, o * np.tanh(exact))):
        found = found.astype(jnp.float64)
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
    assert all(np.isfinite(d.astype(jnp.float64)).all() for d in vjp((h, after)))
