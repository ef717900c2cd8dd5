"""Strips against a plain loop over pixels."""

import itertools

import numpy as np
import pytest

from pixel_rnn_jax.kernels import Strip

SIZES = [Strip(3, 4), Strip(3, 4, 0, 1), Strip(3, 4, 1, 1), Strip(2, 2, 3, 3), Strip(1, 5, 2, 1)]


def maps(strip, features=2, batch=3):
    size = (features, batch, strip.height, strip.width)
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


@pytest.mark.parametrize("strip", SIZES)
def test_lift_takes_back_what_was_laid(strip):
    x = maps(strip)
    laid = np.asarray(strip.lay(x))
    np.testing.assert_array_equal(strip.lift(laid), x)
    np.testing.assert_array_equal(strip.lift_last(laid.T), np.moveaxis(x, 0, -1))
    np.testing.assert_array_equal(strip.lay_last(np.moveaxis(x, 0, -1)), laid.T)


@pytest.mark.parametrize("strip", SIZES)
def test_neighbours_are_the_pixels_that_the_taps_name(strip):
    x, (rows, columns) = maps(strip), strip[2:]
    taps = list(itertools.product(range(-rows, 1), range(-columns, columns + 1)))
    laid = np.asarray(strip.lay(x))
    # What lies in the gaps is seen by no pixel.
    laid = np.where(strip.lay(np.ones_like(x)) == 1, laid, np.nan)
    seen = np.asarray(strip.lift(strip.neighbours(laid, taps))).reshape(len(taps), *x.shape)
    for found, (row, column) in zip(seen, taps, strict=True):
        for r, c in itertools.product(range(strip.height), range(strip.width)):
            above, beside = r + row, c + column
            inside = above >= 0 and 0 <= beside < strip.width
            expected = x[..., above, beside] if inside else np.zeros(x.shape[:2])
            np.testing.assert_array_equal(found[..., r, c], expected)
