"""The fields of body layers, and the incremental form: an explicit state, carried between pixels.

Every layer computes the same map in two ways. `__call__` maps whole images at once; its condition
broadcasts to `[B, H, W, F]`. For generation, in raster order,

    state = layer.init_state(batch, width)
    context = layer.context(condition)                    before each row
    out, state = layer.step(state, x, column, context)    for each column of it
    state = layer.end_row(state, context)                 after its last column

map one pixel `[B, F]` at a time to the same values. The state holds earlier pixels as far as they
are seen; the first axis of every array is the batch. The terms of complete rows are computed at the
end of a row, in one matmul for all columns; a step adds the terms of its own row. So an image costs
no more than a few whole maps, however many pixels it has. A step may be repeated with other values
of the same pixel, and the state of the last repetition is passed on. `context` is the term of the
condition of a row, `[B, W, F]`, in the layer's sums, for all columns at once; None without one.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

State = dict[str, Any]
Context = dict[str, Array]


class BodyLayer(nn.Module):
    """The fields of a body layer, and of the recurrence in it (see the package's docstring)."""

    features_last: ClassVar[bool] = False
    """`__call__` returns `[Z, h]`, instead of `[h, Z]`."""

    features: int
    channels: int
    condition: int = 0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @property
    def dtypes(self) -> dict[str, Any]:
        """The types, as the arguments of other layers."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @property
    def halo(self) -> tuple[int, int]:
        """Rows and columns of padding that the convolutions need."""
        return 0, 0


def at_column(row: Array, column: ArrayLike) -> Array:
    """Returns `[B, F]`, one column of `[B, W, F]`."""
    return lax.dynamic_index_in_dim(row, column, axis=1, keepdims=False)


def put_column(row: Array, values: Array, column: ArrayLike) -> Array:
    """Returns `[B, W, F]` with `[B, F]` in one column."""
    return lax.dynamic_update_index_in_dim(row, values, column, axis=1)
