"""From logits to integer frequencies, the same on every machine.

The logits of two machines differ in their last digits. So they are rounded to a grid, whose step
costs about 6e-7 nats a value, and from there on all arithmetic is exact. Two machines round a logit
differently only if it lies next to the middle between two points of the grid. `on_grid` marks those
within a margin far above the differences, and the file has a correction for each: how the encoder
rounded it.
"""

import decimal
from collections.abc import Iterator
from typing import Any

import numpy as np

from pixel_rnn_jax.codec.format import pack_number, unpack_numbers

STEPS = 256  # Points of the grid per nat.
LARGEST = 2**29  # The last point of the grid.
PRECISION = 24  # The frequencies of a value add up to 2**24.
MARGIN = 1e-10
"""The margin of `on_grid` for the models here, in float64."""


def _weights() -> np.ndarray:
    """Returns floor(2**24 exp(-d / STEPS) + 1/2) for d = 0, 1, ... until it is 0."""
    weights: list[int] = []
    with decimal.localcontext(prec=40):  # Enough for every weight to be exact.
        step, exact = (decimal.Decimal(-1) / STEPS).exp(), decimal.Decimal(2**PRECISION)
        while not weights or weights[-1]:
            weights.append(int(exact + decimal.Decimal("0.5")))
            exact *= step
    return np.array(weights, np.float64)


WEIGHTS = _weights()
"""Weight of a digit that lies d points below the most probable one."""
_CHANGES = np.diff(WEIGHTS, prepend=-1, append=(0, 0)) != 0
_CHANGES = _CHANGES[1:] | _CHANGES[:-1]
"""Whether a digit that lies d points below has another weight one point higher or lower."""


def on_grid(logits: Any, margin: float) -> Any:
    """Rounds logits, an array of float64, to the grid; of JAX, it is traceable.

    Returns twice the integer next to the logit times `STEPS`, plus 1 where it is doubtful: as near
    as `margin`, in nats for each ``1 + |logit|``, to the middle between two points.
    """
    xp = logits.__array_namespace__()
    exact = logits * STEPS
    rounded = xp.round(exact)
    doubtful = xp.abs(exact - rounded) > 0.5 - margin * (STEPS + xp.abs(exact))
    return 2 * xp.clip(rounded, -LARGEST, LARGEST).astype(xp.int32) + doubtful


def frequencies(grid: np.ndarray) -> np.ndarray:
    """Returns the frequencies of all levels less one, `[N, K]` integers as float64.

    They add up to 2**24 - K. `grid` has the logits on the grid, `[N, K]` integers; for K = 2 that
    of the value 1 alone, `[N, 1]`.
    """
    if grid.shape[-1] == 1:
        return _OF_TWO.take(grid[:, 0] + len(WEIGHTS), axis=0, mode="clip")
    weights = WEIGHTS.take(np.maximum.reduce(grid, axis=1, keepdims=True) - grid, mode="clip")
    count, size = grid.shape
    free = 2**PRECISION - size
    # The products are below 2**48, so the floors of these quotients are exact.
    shares = np.floor(weights * free / np.add.reduce(weights, axis=1, keepdims=True))
    # The first of the most probable values gets the rest.
    first = grid.argmax(1) + np.arange(0, count * size, size)
    shares.reshape(-1)[first] += free - np.add.reduce(shares, axis=1)
    return shares


_OF_TWO = frequencies(
    np.stack(np.broadcast_arrays(0, np.arange(-len(WEIGHTS), len(WEIGHTS) + 1)), axis=-1)
)


class RoundingWriter:
    """Rounds the logits of a block for the encoder, and records how it rounded doubtful ones.

    A correction is the index of a logit in coding order and its integer modulo 4, which tells the
    two neighbours apart. `packed` has a varint for each: 4 times the distance from the index
    before, plus the integer modulo 4.
    """

    def __init__(self) -> None:
        self._next = self._last = 0  # Numbers of logits: the next one, the last that is recorded.
        self.packed = bytearray()

    def round(self, doubled: np.ndarray) -> np.ndarray:
        """Returns the next logits `[N, K]` as integers; `doubled` is what `on_grid` makes of them.

        Doubtful logits whose neighbours give the same weight need no correction.
        """
        grid, doubtful = doubled >> 1, doubled & 1
        if np.count_nonzero(doubtful):
            implied = 0 if grid.shape[-1] == 1 else -LARGEST  # For K = 2, the logit of 0.
            highest = np.maximum(grid.max(-1, keepdims=True), implied)
            changes = _CHANGES.take(highest - grid, mode="clip")
            for index in np.flatnonzero(doubtful & changes).tolist():
                number = self._next + index
                bits = int(grid.flat[index]) & 3
                self.packed += pack_number(number - self._last << 2 | bits)
                self._last = number
        self._next += grid.size
        return grid


class RoundingReader:
    """Rounds the logits of a block for the decoder as the encoder did."""

    def __init__(self, packed: bytes):
        self._next, self._corrections = 0, _unpack(packed)
        self._pending = next(self._corrections, None)

    def round(self, doubled: np.ndarray) -> np.ndarray:
        """Returns the next logits `[N, K]` as the integers that the encoder took."""
        grid = doubled >> 1
        end = self._next + grid.size
        while self._pending and self._pending[0] < end:
            number, bits = self._pending
            value = int(grid.flat[number - self._next])
            grid.flat[number - self._next] = value + (bits - value + 1) % 4 - 1
            self._pending = next(self._corrections, None)
        self._next = end
        return grid


def _unpack(packed: bytes) -> Iterator[tuple[int, int]]:
    number = position = 0
    while position < len(packed):
        (value,), position = unpack_numbers(packed, position, 1)
        number += value >> 2
        yield number, value & 3
