"""From logits to integer frequencies, the same on every machine.

The logits of two machines differ in their last digits. So they are rounded to a grid, whose step
costs about 6e-7 nats a value, and from there on all arithmetic is exact. Two machines round a logit
differently only if it lies next to the middle between two points of the grid: `on_grid` marks those
within a margin far above the differences, for `corrections.py`.
"""

import decimal

import jax.numpy as jnp
import numpy as np
from jax import Array

STEPS = 256
"""Points of the grid per nat."""

PRECISION = 24
"""The frequencies of a value add up to 2**24."""

MARGIN = 1e-10
"""A logit is doubtful this near the middle between two points, in nats for each 1 + |logit|."""

LARGEST = 2**29
"""The last point of the grid."""


def _weights() -> np.ndarray:
    """Returns floor(2**24 exp(-d / STEPS) + 1/2) for d = 0, 1, ... until it is 0."""
    weights: list[int] = []
    with decimal.localcontext() as context:
        context.prec = 40  # Enough for every weight to be exact.
        step, exact = (decimal.Decimal(-1) / STEPS).exp(), decimal.Decimal(2**PRECISION)
        while not weights or weights[-1]:
            weights.append(int(exact + decimal.Decimal("0.5")))
            exact *= step
    return np.array(weights, np.float64)


WEIGHTS = _weights()
"""What a level weighs that lies d points below the most probable one."""


def on_grid(logits: Array) -> Array:
    """Rounds logits to the grid; traceable.

    Returns:
        int32: twice the integer next to the logit times `STEPS`, plus 1 where it is doubtful.
    """
    exact = logits * STEPS
    rounded = jnp.round(exact)
    doubtful = jnp.abs(exact - rounded) > 0.5 - MARGIN * (STEPS + jnp.abs(exact))
    return 2 * jnp.clip(rounded, -LARGEST, LARGEST).astype(jnp.int32) + doubtful


def frequencies(grid: np.ndarray) -> np.ndarray:
    """Returns the frequencies of all levels less one, `[N, K]` integers as float64.

    They add up to 2**24 - K. `grid` has the logits on the grid, `[N, K]` integers; for K = 2 that
    of the value 1 alone, `[N, 1]`.
    """
    if grid.shape[-1] == 1:
        return _OF_TWO.take(grid[:, 0] + len(WEIGHTS), axis=0, mode="clip")
    return _of_levels(grid)


def _of_levels(grid: np.ndarray) -> np.ndarray:
    weights = WEIGHTS.take(grid.max(-1, keepdims=True) - grid, mode="clip")
    free = 2**PRECISION - grid.shape[-1]
    # The products are below 2**48, so the floors of these quotients are exact.
    found = np.floor(weights * free / weights.sum(-1, keepdims=True))
    # The first of the most probable levels gets the rest.
    found[np.arange(len(grid)), grid.argmax(-1)] += free - found.sum(-1)
    return found


_OF_TWO = _of_levels(
    np.stack(np.broadcast_arrays(0, np.arange(-len(WEIGHTS), len(WEIGHTS) + 1)), axis=-1)
)
