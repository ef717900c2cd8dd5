"""The linear recurrence against a plain loop: values and vector-Jacobian products."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.reference_kernels import assert_agree, linear_recurrence, values_and_gradients

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.kernels import linear

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(params=["one after the other", "in parallel"], autouse=True)
def form(request, monkeypatch):
    """Both forms, a CPU's for short axes and another device's for all, on this one."""
    if request.param == "in parallel":
        monkeypatch.setattr(linear, "UNROLLED", 0)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("shape", "axis"), [((2, 5, 3, 2), 1), ((2, 3, 6, 2), 2), ((1, 2), 0)])
def test_it_is_the_loop(shape, axis, reverse):
    rng, options = np.random.default_rng(0), dict(axis=axis, reverse=reverse)
    run, loop = (
        functools.partial(f, **options) for f in (kernels.linear_recurrence, linear_recurrence)
    )
    assert_agree(run, loop, (rng.normal(size=shape), rng.normal(size=shape)), rng)


def test_other_precisions():
    run = functools.partial(kernels.linear_recurrence, axis=1)
    rng = np.random.default_rng(0)
    exact = tuple(jnp.asarray(rng.uniform(-1, 1, size=(2, 9, 3))) for _ in range(3))
    for dtype, tolerance in ((jnp.float32, 1e-6), (jnp.bfloat16, 2e-2)):
        inputs = [x.astype(dtype) for x in exact]
        expected = values_and_gradients(run)(*(x.astype(jnp.float64) for x in inputs))
        found = jax.jit(values_and_gradients(run))(*inputs)
        for x, y in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert x.dtype == dtype
            assert np.abs(x.astype(jnp.float64) - y).max() <= tolerance * np.abs(y).max()
