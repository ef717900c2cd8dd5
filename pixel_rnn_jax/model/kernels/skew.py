"""Shifting and skewing: from rows and columns of an image to the diagonals of a scan.

Each row is offset by one position from the row above, so that a column of the skewed map is a
diagonal of the image (section 3.2). `pack` images may follow one another in a lane: a row that has
finished one image goes on with the next, so that they take pack * W + H - 1 steps instead of
pack * (W + H - 1).
"""

import jax.numpy as jnp
import numpy as np
from jax import Array, lax


def read_at(x: Array, offset: int, axis: int) -> Array:
    """Returns x[position + offset] at each position of `axis`, and zeros where that is outside."""
    if not offset:
        return x
    size = x.shape[axis]
    low, high = max(-offset, 0), max(offset, 0)
    if low + high >= size:
        return jnp.zeros_like(x)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (low, high)
    return jnp.pad(lax.slice_in_dim(x, high, size - low, axis=axis), padding)


def skew(x: Array, *, pack: int = 1) -> Array:
    """Skews `[B, H, W, F]` to `[T, H, B / pack, F]` with T = pack * W + H - 1.

    Image i of a lane is x[lane * pack + i]; its pixel (r, c) lies at step i * W + c + r, position
    r. Where a row has not begun or has ended there are zeros.
    """
    batch, height, width, features = x.shape
    lanes, steps = batch // pack, pack * width + height - 1
    x = x.reshape(lanes, pack, height, width, features).transpose(2, 1, 3, 0, 4)
    x = x.reshape(height, pack * width, lanes, features)
    # A row of T + 1 positions, read back as rows of T, shifts each row by one more than the last.
    padded = jnp.pad(x, ((0, 0), (0, height), (0, 0), (0, 0)))
    x = padded.reshape(height * (steps + 1), lanes, features)[: height * steps]
    return x.reshape(height, steps, lanes, features).swapaxes(0, 1)


def unskew(y: Array, *, width: int, pack: int = 1) -> Array:
    """Takes the skewed `[T, H, L, F]` back to `[L * pack, H, W, F]`."""
    steps, height, lanes, features = y.shape
    y = y.swapaxes(0, 1).reshape(height * steps, lanes, features)
    padded = jnp.pad(y, ((0, height), (0, 0), (0, 0)))
    y = padded.reshape(height, steps + 1, lanes, features)[:, : pack * width]
    y = y.reshape(height, pack, width, lanes, features).transpose(3, 1, 0, 2, 4)
    return y.reshape(lanes * pack, height, width, features)


def restarts(height: int, width: int, *, pack: int = 1) -> np.ndarray:
    """Marks the steps at which a row is at the first column of an image: `[T, H]` booleans."""
    steps = np.arange(pack * width + height - 1)[:, None] - np.arange(height)[None, :]
    return (steps >= 0) & (steps < pack * width) & (steps % width == 0)
