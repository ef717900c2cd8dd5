"""Padded rows against a plain loop over pixels."""

import itertools

import numpy as np
import pytest

from pixel_rnn_jax.kernels import PaddedRows

SIZES = [(3, 4, 0, 1), (2, 2, 3, 3), (1, 5, 2, 1)]


@pytest.mark.parametrize("size", SIZES)
def test_unpack_is_the_inverse_and_neighbours_are_the_pixels_that_the_taps_name(size):
    layout, (height, width, rows, columns) = PaddedRows(*size), size
    x = np.random.default_rng(0).normal(size=(2, 3, height, width)).astype(np.float32)
    packed = np.asarray(layout.pack(x))
    np.testing.assert_array_equal(layout.unpack(packed), x)
    last = np.moveaxis(x, 0, -1)
    np.testing.assert_array_equal(layout.pack(last, features_last=True), packed.T)
    np.testing.assert_array_equal(layout.unpack(packed.T, features_last=True), last)

    taps = list(itertools.product(range(-rows, 1), range(-columns, columns + 1)))
    # No pixel sees the padding, whatever it holds.
    packed = np.where(layout.pack(np.ones_like(x)) == 1, packed, np.nan)
    seen = np.asarray(layout.unpack(layout.neighbours(packed, taps)))
    for neighbour, (row, column) in zip(seen.reshape(-1, *x.shape), taps, strict=True):
        for r, c in np.ndindex(height, width):
            above, beside = r + row, c + column
            inside = above >= 0 and 0 <= beside < width
            expected = x[..., above, beside] if inside else np.zeros(x.shape[:2])
            np.testing.assert_array_equal(neighbour[..., r, c], expected)
