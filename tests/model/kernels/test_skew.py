"""Skewing, and the recurrences over images that it makes of `conv_lstm`, against plain loops."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import reference_kernels as loops

from pixel_rnn_jax.model.kernels import conv_lstm, restarts, skew, unskew

SIZES = [(2, 3, 1), (3, 2, 2), (1, 3, 4), (3, 1, 2)]  # H, W and images per lane.

pytestmark = pytest.mark.usefixtures("x64")


@pytest.mark.parametrize(("height", "width", "pack"), SIZES)
def test_skew_lays_pixels_on_diagonals_and_unskew_is_its_inverse_and_transpose(height, width, pack):
    rng = np.random.default_rng(10)
    steps = pack * width + height - 1
    x = rng.normal(size=(4, height, width, loops.FEATURES))
    y = rng.normal(size=(steps, height, 4 // pack, loops.FEATURES))
    forth = jax.jit(loops.values_and_gradients(functools.partial(skew, pack=pack)))
    back = jax.jit(loops.values_and_gradients(functools.partial(unskew, width=width, pack=pack)))
    skewed, (skew_transpose_of_y,) = forth(y, x)
    expected = np.zeros_like(y)
    for t, row, lane, image in np.ndindex(steps, height, 4 // pack, pack):
        column = t - row - image * width
        if 0 <= column < width:
            expected[t, row, lane] = x[lane * pack + image, row, column]
    np.testing.assert_array_equal(skewed, expected)
    np.testing.assert_array_equal(back(x, skewed)[0], x)
    unskewed, (unskew_transpose_of_x,) = back(x, y)
    np.testing.assert_allclose(np.vdot(skewed, y), np.vdot(x, unskewed), rtol=1e-12)
    np.testing.assert_array_equal(skew_transpose_of_y, unskewed)
    np.testing.assert_array_equal(unskew_transpose_of_x, skewed)


@pytest.mark.parametrize(("height", "width", "pack"), SIZES)
def test_diagonal_recurrence_is_the_loop_over_pixels(height, width, pack):
    """Whatever the gates are at steps in which a row is outside every image."""

    def diagonal_lstm(gates, own, above, h0, c0):
        inside = skew(jnp.ones_like(gates), pack=pack) > 0
        h = conv_lstm(
            jnp.where(inside, skew(gates, pack=pack), 3.0),
            jnp.stack([own, above]),
            h0,
            c0,
            taps=(0, -1),
            restart=restarts(height, width, pack=pack),
        )
        return unskew(h, width=width, pack=pack)

    rng = np.random.default_rng(12)
    gates, (own, above), h0, c0 = loops.random_arguments(rng, 4, height, width, taps=2)
    arguments = gates, own, above, h0, c0
    loops.assert_agree(diagonal_lstm, loops.diagonal_lstm, arguments, rng)
