"""How the encoder rounded the doubtful logits of a block, so that the decoder does the same.

A correction is the number of a logit, in the order of coding, and the last two bits of its integer:
they say which of two neighbours it is.
"""

from collections.abc import Iterator

import numpy as np

from pixel_rnn_jax.codec import varint
from pixel_rnn_jax.codec.frequencies import LARGEST, WEIGHTS


class Recorder:
    """The corrections of the encoder, which finds them."""

    def __init__(self) -> None:
        self._next = self._last = 0  # Numbers of logits: the next one, the last that is recorded.
        self._packed = bytearray()

    def exact(self, rounded: np.ndarray) -> np.ndarray:
        """Returns the next logits `[N, K]` as integers, and records the doubtful ones.

        `rounded` is what `on_grid` makes of them. Those without any weight are left out.
        """
        grid, doubtful = rounded >> 1, rounded & 1
        if doubtful.any():
            other = 0 if grid.shape[-1] == 1 else -LARGEST  # Of two levels, one has the logit 0.
            highest = np.maximum(grid.max(-1, keepdims=True), other)
            for index in np.flatnonzero(doubtful & (highest - grid <= len(WEIGHTS))).tolist():
                number = self._next + index
                self._packed += varint.pack(number - self._last << 2 | int(grid.flat[index]) & 3)
                self._last = number
        self._next += grid.size
        return grid

    def pack(self) -> bytes:
        """Returns a varint for each: four times its distance from the one before, plus the bits."""
        return bytes(self._packed)


class Corrector:
    """The corrections of the decoder, which is given them.

    Raises:
        ValueError: These are not packed corrections.
    """

    def __init__(self, packed: bytes):
        self._next, self._found = 0, _unpack(packed)
        self._pending = next(self._found, None)

    def exact(self, rounded: np.ndarray) -> np.ndarray:
        """Returns the next logits `[N, K]` as the integers that the encoder took."""
        grid = rounded >> 1
        end = self._next + grid.size
        while self._pending and self._pending[0] < end:
            number, bits = self._pending
            value = int(grid.flat[number - self._next])
            grid.flat[number - self._next] = value + (bits - value + 1) % 4 - 1
            self._pending = next(self._found, None)
        self._next = end
        return grid


def _unpack(packed: bytes) -> Iterator[tuple[int, int]]:
    number = position = 0
    while position < len(packed):
        value, position = varint.unpack(packed, position)
        number += value >> 2
        yield number, value & 3
