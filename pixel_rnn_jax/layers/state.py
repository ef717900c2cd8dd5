"""The incremental form of the layers: an explicit state, carried from pixel to pixel.

Every layer computes the same map in two ways. `__call__` maps whole images at once. For generation,
in raster order,

    state = layer.init_state(batch, width)
    context = layer.context(condition)                    before each row
    out, state = layer.step(state, x, column, context)    for each column of it
    state = layer.end_row(state, context)                 after its last column

map one pixel `[B, F]` at a time to the same values. The state holds what a pixel sees of earlier
ones; the first axis of every array is the batch. What complete rows add to the next one is computed
at the end of a row, in one matmul for all columns; a step adds what its own row gives. So an image
costs no more than a few whole maps, however many pixels it has. A step may be repeated with other
values of the same pixel, and the state of the last repetition is passed on. `context` is what the
condition of a row, `[B, W, F]`, adds to the layer's sums, for all columns at once; without a
condition it is None.
"""

from typing import Any

from jax import Array, lax
from jax.typing import ArrayLike

State = dict[str, Any]
Context = dict[str, Array]


def at_column(row: Array, column: ArrayLike) -> Array:
    """Returns `[B, F]`, one column of `[B, W, F]`."""
    return lax.dynamic_index_in_dim(row, column, axis=1, keepdims=False)


def put_column(row: Array, values: Array, column: ArrayLike) -> Array:
    """Returns `[B, W, F]` with `[B, F]` in one column."""
    return lax.dynamic_update_index_in_dim(row, values, column, axis=1)
