"""The contract of a body layer: `BodyLayer`, and helpers of its incremental form."""

import abc
from typing import Any, ClassVar

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

State = dict[str, Any]
Context = dict[str, Array]


class BodyLayer(nn.Module, abc.ABC):
    """A map of the stream, `[B, H, W, 2h]`, to `[B, H, W, h]`, in which no output sees the future.

    A layer computes its map in two ways: `__call__` for whole images, and for generation, in raster
    order, an incremental form with the same parameters:

        state = layer.init_state(batch, width)
        context = layer.context(condition)                    before each row
        out, state = layer.step(state, x, column, context)    for each column of it
        state = layer.end_row(state, context)                 after its last column

    The state holds earlier pixels as far as they are seen; the first axis of every array is the
    batch. Terms of complete rows are best computed in `end_row`, in one matmul for all columns, so
    that an image costs no more than a few whole maps. A step may be repeated from the same state
    with other values of the pixel; the state after the last one is passed on.

    A field that has the name of a field of `ModelConfig` takes its value from there. The features
    are in contiguous groups, one for each channel that the masks tell apart: see `channel_mask`.

    Attributes:
        features: h.
        mask_groups: The number of groups: C, or 1 where the outputs couple the channels.
        condition: The number of features F of the condition; 0 for none.
        dtype: Type of the operands of matrix products.
        param_dtype: Type of parameters, sums and states.
    """

    recurrent: ClassVar[bool] = False
    """It runs a `lax.scan` over the images, whose steps all images of a batch share."""

    features: int
    mask_groups: int
    condition: int = 0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @property
    def dtypes(self) -> dict[str, Any]:
        """The types, as the arguments of other layers."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @abc.abstractmethod
    def reach(self, height: int, width: int) -> np.ndarray:
        """Returns the pixels that an output depends on, exactly: `[H, W, H, W]` booleans.

        Entry [r, c, i, j] says whether the output at (r, c) sees the input at (i, j): all of its
        groups, and at (r, c) itself those up to the group of the output.
        """

    @abc.abstractmethod
    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        """Maps `[B, H, W, 2h]` to `[B, H, W, h]`.

        The condition is `[B, H, W, F]` or `[B, 1, 1, F]`; None without one.
        """

    @abc.abstractmethod
    def context(self, condition: Array) -> Context:
        """Maps the condition of a row, `[B, W, F]`, to its terms in the layer's sums."""

    @abc.abstractmethod
    def init_state(self, batch: int, width: int) -> State:
        """Returns the state before the first row."""

    @abc.abstractmethod
    def step(
        self, state: State, x: Array, column: ArrayLike, context: Context | None = None
    ) -> tuple[Array, State]:
        """Maps one pixel, `[B, 2h]`, to `[B, h]`, and returns the state after it."""

    def end_row(self, state: State, context: Context | None = None) -> State:
        """Moves on to the next row; `context` belongs to the row that ends."""
        return state


def offsets(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns how many rows up and how many columns to the right of an output an input lies.

    Both are `[H, W, H, W]` integers, for `BodyLayer.reach`.
    """
    row, column, row_in, column_in = np.indices((height, width, height, width))
    return row - row_in, column_in - column


def at_column(row: Array, column: ArrayLike) -> Array:
    """Returns `[B, F]`, one column of `[B, W, F]`."""
    return lax.dynamic_index_in_dim(row, column, axis=1, keepdims=False)


def put_column(row: Array, values: Array, column: ArrayLike) -> Array:
    """Returns `[B, W, F]` with `[B, F]` in one column."""
    return lax.dynamic_update_index_in_dim(row, values, column, axis=1)
