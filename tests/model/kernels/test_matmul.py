"""Products of rounded operands, and their gradients, against NumPy in float64."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixel_rnn_jax.model.kernels import matmul

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(
    ("x_shape", "y_shape", "subscripts"),
    [((3, 4), (4, 5), "mk,kn->mn"), ((2, 3, 4), (4, 5), "bmk,kn->bmn")],
)
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float64])
def test_operands_are_rounded_and_sums_are_not(x_shape, y_shape, subscripts, dtype):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=x_shape), rng.normal(size=y_shape)
    out, vjp = jax.vjp(functools.partial(matmul, dtype=dtype), x, y)
    gradient = rng.normal(size=out.shape)
    rounded_x, rounded_y, rounded = (
        np.asarray(jnp.asarray(a).astype(dtype).astype(jnp.float64)) for a in (x, y, gradient)
    )
    of_x, of_y, of_out = subscripts.replace("->", ",").split(",")
    expected = (
        np.einsum(subscripts, rounded_x, rounded_y),
        np.einsum(f"{of_out},{of_y}->{of_x}", rounded, rounded_y),
        np.einsum(f"{of_out},{of_x}->{of_y}", rounded, rounded_x),
    )
    for found, exact in zip((out, *vjp(gradient)), expected, strict=True):
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, exact, rtol=0, atol=1e-12)
