"""The recurrence against a plain loop: values and vector-Jacobian products, in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from helpers import reference_kernels as loops
from helpers.random_models import assert_trees_close

from pixel_rnn_jax.model.kernels import conv_lstm, restarts

CASES = [  # Taps, restarts, and the shape (T, P, L).
    ((0,), "first step", (4, 4, 2)),
    ((-1, 0), "every step", (4, 4, 2)),
    ((0, -1), "diagonal", (4, 4, 2)),
    ((-1, 0, 1), "none", (4, 4, 2)),
    ((-2, -1, 0, 1, 2), "random", (4, 4, 2)),
    ((1,), "random", (4, 4, 2)),
    ((-3, 0), "random", (4, 4, 2)),
    *(((-1, 0, 1), "random", line) for line in [(1, 1, 1), (1, 3, 2), (3, 1, 2)]),
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


@pytest.mark.parametrize(
    ("function", "taps", "kind", "line"),
    [*((conv_lstm, *case) for case in CASES), (plain.conv_lstm, (-1, 0, 1), "random", (4, 4, 1))],
)
def test_recurrence_is_the_loop(function, taps, kind, line):
    rng = np.random.default_rng(0)
    options = dict(taps=taps, restart=restart_pattern(kind, *line[:2], rng))
    run, loop = (functools.partial(f, **options) for f in (function, loops.conv_lstm))
    loops.assert_agree(run, loop, loops.random_arguments(rng, *line, taps=len(taps)), rng)


def test_other_precisions_and_a_forward_pass_without_gradient():
    run = functools.partial(conv_lstm, taps=(0, -1), restart=restarts(5, 3))
    with_gradients = jax.jit(loops.values_and_gradients(run))
    rng = np.random.default_rng(2)
    cotangent = rng.normal(size=(7, 5, 4, loops.FEATURES))
    arguments = loops.random_arguments(rng, 7, 5, 4, taps=2)
    exact = tuple(map(jnp.asarray, (cotangent, *arguments)))
    assert_trees_close(jax.jit(run)(*exact[1:]), with_gradients(*exact)[0])
    loops.assert_precise(with_gradients, exact, 1e-5)


def test_rounded_operands_agree_with_the_loop():
    """States, gates and sums stay as they are; gradients are within the rounding's error."""

    def rounded(x):
        return np.asarray(x).astype(jnp.bfloat16).astype(np.float64)

    rng = np.random.default_rng(3)
    options = dict(taps=(-1, 0, 1), restart=restarts(3, 4))
    arguments = [jnp.asarray(x) for x in loops.random_arguments(rng, 6, 3, 2, taps=3)]
    run = jax.jit(functools.partial(conv_lstm, dtype=jnp.bfloat16, **options))
    loop = functools.partial(loops.conv_lstm, rounded=rounded, **options)
    np.testing.assert_allclose(
        run(*arguments), loop(*map(np.asarray, arguments)), rtol=0, atol=1e-12
    )
    cotangent = jnp.asarray(rng.normal(size=(6, 3, 2, loops.FEATURES)))
    found, exact = (
        jax.jit(loops.values_and_gradients(f))(cotangent, *arguments)[1]
        for f in (run, functools.partial(conv_lstm, **options))
    )
    for x, y in zip(found, exact, strict=True):
        assert x.dtype == jnp.float64
        assert 0 < jnp.linalg.norm(x - y) < 0.02 * jnp.linalg.norm(y)
