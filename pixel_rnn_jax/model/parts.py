"""Pictures of any size as grids of parts.

A picture with a side of more than T pixels is a grid of parts, as equal as can be, and none larger
than T x T. Each part is an image of its own: the probability of the picture is the product over its
parts, and neither time for a pixel nor memory grows with the picture.
"""

import itertools
import math
from collections.abc import Iterable
from typing import Any, NamedTuple


class Part(NamedTuple):
    """A part of the picture `picture`, a number."""

    picture: int
    top: int
    left: int
    height: int
    width: int

    def of(self, array: Any) -> Any:
        """Returns the part of an array `[H, W, ...]` of the picture."""
        return array[self.top : self.top + self.height, self.left : self.left + self.width]


def default_side(height: int, width: int) -> int:
    """Returns T for a model of images H x W: the power of two from twice the longer side on."""
    return 1 << (2 * max(height, width) - 1).bit_length()


def grids(
    sizes: Iterable[tuple[int, int]], side: int, stride: int = 1
) -> dict[tuple[int, int], list[Part]]:
    """Returns the parts of pictures by their shape, in order of pictures, rows and columns.

    `sizes` are the pictures' `(H, W)`, and `side` is T. Edges are multiples of `stride`.
    """
    parts: dict[tuple[int, int], list[Part]] = {}
    for picture, size in enumerate(sizes):
        rows, columns = (_intervals(length, side, stride) for length in size)
        for top, height in rows:
            for left, width in columns:
                part = Part(picture, top, left, height, width)
                parts.setdefault((height, width), []).append(part)
    return parts


def _intervals(length: int, side: int, stride: int) -> list[tuple[int, int]]:
    # As np.array_split: the longer ones first, so that neighbours are mostly of one shape.
    units = length // stride
    count = math.ceil(units / max(1, side // stride))
    edges = [stride * (i * (units // count) + min(i, units % count)) for i in range(count + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(edges)]
