"""The linear recurrences against a plain loop: values and vector-Jacobian products."""

import jax
import jax.numpy as jnp
import numpy as np
import plain
import pytest
from helpers import reference_kernels as loops

from pixel_rnn_jax.model.kernels import linear

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture(params=["one after the other", "in parallel"], autouse=True)
def form(request, monkeypatch):
    """Both forms, a CPU's for short axes and another device's for all, on this one."""
    if request.param == "in parallel":
        monkeypatch.setattr(linear, "UNROLLED", 0)


def both_states(gates, sweep=linear.sweep):
    return jnp.concatenate(sweep(gates), axis=-1)


@pytest.mark.parametrize("size", [(2, 4, 5), (1, 3, 1), (1, 1, 7), (1, 9, 8)])
@pytest.mark.parametrize("sweep", [linear.sweep, plain.sweep])
def test_sweep_is_the_loop(sweep, size):
    rng = np.random.default_rng(0)
    gates = rng.normal(size=(*size, 6 * 2))
    loops.assert_agree(lambda gates: both_states(gates, sweep), loops.linear_sweep, (gates,), rng)


@pytest.mark.slow
def test_other_precisions():
    rng = np.random.default_rng(0)
    exact = rng.normal(size=(2, 4, 6, 6)), rng.normal(size=(2, 4, 6, 12))
    loops.assert_precise(jax.jit(loops.values_and_gradients(both_states)), exact, 1e-6)
