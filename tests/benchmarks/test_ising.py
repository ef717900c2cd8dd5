"""The spins whose entropy is known, against all states of a small torus."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from ising import draw, entropy, nats


@pytest.mark.parametrize("height, width", [(3, 3), (4, 3), (3, 4)])
def test_draws_and_entropy(height, width):
    sites, beta = height * width, 0.4
    states = np.arange(2**sites)[:, None] >> np.arange(sites) & 1
    spins = (2.0 * states - 1).reshape(-1, height, width)
    bonds = sum((spins * np.roll(spins, 1, axis)).sum((1, 2)) for axis in (1, 2))
    chances = np.exp(beta * bonds)
    chances /= chances.sum()
    assert entropy(height, width, beta) == pytest.approx(-(chances @ np.log(chances)), abs=1e-6)

    count = 100_000
    images = draw(count, height, width, beta, np.random.default_rng(0))
    assert images.shape == (count, height, width, 1) and images.dtype == np.uint8
    np.testing.assert_allclose(nats(states.reshape(-1, height, width, 1), beta), -np.log(chances))
    numbers = images.reshape(count, sites) @ (1 << np.arange(sites))
    found = np.bincount(numbers, minlength=2**sites)
    # Chi-squared: its mean is the number of states - 1, its deviation the root of twice that.
    squares = ((found - count * chances) ** 2 / (count * chances)).sum()
    assert abs(squares - 2**sites) < 5 * (2 * 2**sites) ** 0.5
