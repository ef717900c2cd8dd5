"""Which inputs an output depends on, by the architecture's definition alone (sections 3.1 to 3.6).

Sets are propagated through a graph whose nodes are (row, column, channel group); nothing of the
package is used. A set is a boolean array [H, W, C] of inputs, and a map of sets, one for each node,
is [H, W, C, H, W, C]: `sets[r, c, g]` are the inputs that node (r, c, g) depends on.

Residual and skip connections are not in the graph, since they change no set: a body layer's masked
convolution reads its own position and group, so a layer depends on all that its input depends on.
"""

import itertools

import numpy as np


def reach(
    architecture: str,
    image_shape: tuple[int, int, int],
    *,
    layers: int,
    first_kernel: int = 7,
    kernel: int = 3,
    coupled: bool = False,
) -> np.ndarray:
    """Returns the exact inputs of every output of a network, bool [H, W, C, H, W, C].

    With `coupled`, the network sees whole pixels, and its outputs for a channel depend on the
    earlier channels of the pixel besides.
    """
    if coupled:
        height, width, channels = image_shape
        one = (height, width, 1)
        pixels = reach(architecture, one, layers=layers, first_kernel=first_kernel, kernel=kernel)
        sets = np.tile(pixels, (1, 1, channels, 1, 1, channels))
        for r, c in np.ndindex(height, width):
            sets[r, c, :, r, c, :] = np.tri(channels, k=-1, dtype=bool)
        return sets
    size = int(np.prod(image_shape))
    sets = np.eye(size, dtype=bool).reshape(*image_shape, *image_shape)
    sets = _masked_conv(sets, _square(first_kernel), own_group=False)
    none = np.zeros((*image_shape[:2], *image_shape), bool)
    return _body(architecture, sets, none, layers, kernel)


def reach_of_coarse(
    architecture: str,
    image_shape: tuple[int, int, int],
    ratio: int,
    *,
    layers: int,
    kernel: int = 3,
) -> np.ndarray:
    """Returns the pixels of the small image that every output sees, bool [H, W, C, h, w].

    `ratio` is prime: a 5x5 convolution, then a transposed one, whose output sees the coarse pixel
    that it lies in and the eight around it. With a ratio of 1, for a map that is no smaller, there
    is no transposed one. Every body layer adds that map to its sums.
    """
    height, width, channels = image_shape
    coarse, distance = (height // ratio, width // ratio), 2 if ratio == 1 else 3
    rows, columns = (
        np.abs(np.arange(size)[:, None] // ratio - np.arange(small)[None]) <= distance
        for size, small in zip((height, width), coarse, strict=True)
    )
    condition = rows[:, None, :, None] & columns[None, :, None, :]
    sets = np.zeros((height, width, channels, *coarse), bool)
    return _body(architecture, sets, condition, layers, kernel)


def _body(
    architecture: str, sets: np.ndarray, condition: np.ndarray, layers: int, kernel: int
) -> np.ndarray:
    """Carries the sets of the first convolution through body and head."""
    sets = body_reach(architecture, sets, condition, layers, kernel)
    return _masked_conv(sets, [(0, 0)], own_group=True)


def body_reach(
    architecture: str, sets: np.ndarray, condition: np.ndarray, layers: int = 1, kernel: int = 3
) -> np.ndarray:
    """Carries sets, and those of the condition `[H, W, ...]`, through some layers of a body."""
    down = np.zeros_like(sets[:, :, 0])  # The vertical stack, which sees complete rows above.
    down[1:] = (sets.any(2) | condition)[:-1]
    for _ in range(layers):
        if architecture == "pixel_cnn":
            # The block's 1x1 convolutions, mask B as well, add what the next one adds anyway.
            sets = _masked_conv(sets, _square(kernel), own_group=True)
            sets |= condition[:, :, None]
        elif architecture == "gated_pixel_cnn":
            window = [(row, column) for row, column in _square(kernel) if row <= 0]
            above = np.zeros_like(down)
            for (r, c), (i, j) in itertools.product(np.ndindex(*down.shape[:2]), window):
                above[r, c] |= _read(down, r + i, c + j)
            down = above
            row = [(0, j) for _, j in _square(kernel)]
            sets = _masked_conv(sets, row, own_group=True) | (down | condition)[:, :, None]
        elif architecture == "row_lstm":
            sets = _row_lstm(sets, condition, kernel)
        elif architecture == "diagonal_bilstm":
            sets = _diagonal_bilstm(sets, condition)
        else:
            sets = _all_earlier(sets, condition)
    return sets


def allowed(image_shape: tuple[int, int, int]) -> np.ndarray:
    """Returns all that comes earlier in generation order, bool [H, W, C, H, W, C]."""
    size = int(np.prod(image_shape))
    return np.tri(size, k=-1, dtype=bool).reshape(*image_shape, *image_shape)


def _square(side: int) -> list[tuple[int, int]]:
    half = side // 2
    return [(i, j) for i in range(-half, half + 1) for j in range(-half, half + 1)]


def _masked_conv(sets: np.ndarray, window: list[tuple[int, int]], *, own_group: bool) -> np.ndarray:
    """Mask A (own_group False) or B (True): earlier pixels, and earlier groups of its own pixel."""
    height, width, groups = sets.shape[:3]
    out = np.zeros_like(sets)
    for r, c in np.ndindex(height, width):
        for i, j in window:
            if (i, j) < (0, 0):
                out[r, c] |= _read(sets, r + i, c + j).any(0)
        for g in range(groups):
            out[r, c, g] |= sets[r, c, : g + own_group].any(0)
    return out


def _row_lstm(sets: np.ndarray, condition: np.ndarray, kernel: int) -> np.ndarray:
    half = kernel // 2
    states = _masked_conv(sets, [(0, j) for j in range(-half, half + 1)], own_group=True)
    states |= condition[:, :, None]
    for r, c in np.ndindex(*states.shape[:2]):
        for tap in range(-half, half + 1):
            states[r, c] |= _read(states, r - 1, c + tap).any(0)
    return states


def _diagonal_bilstm(sets: np.ndarray, condition: np.ndarray) -> np.ndarray:
    left = _diagonal_states(sets, condition)
    right = _diagonal_states(sets[:, ::-1], condition[:, ::-1])[:, ::-1]
    out = left.copy()
    out[1:] |= right[:-1]
    return out


def _diagonal_states(sets: np.ndarray, condition: np.ndarray) -> np.ndarray:
    states = _masked_conv(sets, [(0, 0)], own_group=True)
    states |= condition[:, :, None]
    for r, c in np.ndindex(*states.shape[:2]):
        states[r, c] |= _read(states, r, c - 1).any(0) | _read(states, r - 1, c).any(0)
    return states


def _all_earlier(sets: np.ndarray, condition: np.ndarray) -> np.ndarray:
    out = _masked_conv(sets, [(0, 0)], own_group=True) | condition[:, :, None]
    pixels = sets.any(2) | condition
    for r, c in np.ndindex(*pixels.shape[:2]):
        out[r, c] |= pixels[:r].any((0, 1)) | pixels[r, :c].any(0)
    return out


def _read(sets: np.ndarray, r: int, c: int) -> np.ndarray:
    """Returns the sets of one pixel's groups; outside the image they are empty."""
    height, width = sets.shape[:2]
    if 0 <= r < height and 0 <= c < width:
        return sets[r, c]
    return np.zeros_like(sets[0, 0])
