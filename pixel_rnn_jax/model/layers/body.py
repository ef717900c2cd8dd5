"""The contracts of bodies and layers: maps of the stream in which no output sees the future."""

import abc
from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike

State = Any
Context = Any
Position = tuple[ArrayLike, ArrayLike]
"""The row and the column of a pixel."""


class KnownPixels(NamedTuple):
    """The state of the default incremental form."""

    x: Array  # [B, H, W, 2h], 0 where unknown.
    condition: Array  # [B, H, W, F], of the rows so far.


class CausalMap(nn.Module, abc.ABC):
    """A map of the stream, `[B, H, W, 2h]`, in which no output sees a pixel that comes later.

    `__call__` computes it for whole images. Generation, in raster order, computes it pixel by pixel
    with the same parameters:

        state = module.init_state(batch, height, width)
        context = module.context(condition)                             before each row
        out, state = module.step(state, x, (row, column), context)      for each column of it
        state = module.end_row(state, context)                          after its last column

    A step may be repeated from the same state with other values of the pixel; the state after the
    last one is passed on. The first axis of every array of a state is the batch.

    The default methods call `__call__` on the known pixels: a whole map for each pixel. Override
    all four or none: a state holds what later pixels see, and `end_row` best computes the terms of
    the complete rows, in one matmul for all columns.

    A field that has the name of a field of `ModelConfig` takes its value from there. The features
    are in contiguous groups, one for each channel that the masks tell apart: see `channel_mask`.
    `layers.check` proves all of this of a module.

    Attributes:
        features: h.
        mask_groups: The number of groups: C, or 1 where the outputs couple the channels.
        condition: The number of features F of the condition; 0 for none.
        dtype: Type of the operands of matrix products.
        param_dtype: Type of parameters, sums and states.
    """

    recurrent: ClassVar[bool] = False
    """It runs a `lax.scan` over the images, whose steps all images of a batch share."""
    narrow: ClassVar[bool] = False
    """A step given the first groups of a pixel alone maps them to the same groups of its output.

    The state that it returns then is not used."""

    features: int
    mask_groups: int
    condition: int = 0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @property
    def dtypes(self) -> dict[str, Any]:
        """The types, as the arguments of other modules."""
        return {"dtype": self.dtype, "param_dtype": self.param_dtype}

    @abc.abstractmethod
    def __call__(self, x: Array, condition: Array | None = None) -> Any:
        """Maps `[B, H, W, 2h]`; the condition is `[B, H, W, F]`, `[B, 1, 1, F]` or None."""

    def context(self, condition: Array) -> Context:
        """Maps the condition of a row, `[B, W, F]`, to its terms in the map."""
        return condition

    def init_state(self, batch: int, height: int, width: int) -> State:
        """Returns the state before the first row."""
        shape = batch, height, width
        sizes = 2 * self.features, self.condition
        return KnownPixels(*(jnp.zeros((*shape, size), self.param_dtype) for size in sizes))

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Any, State]:
        """Maps one pixel, `[B, 2h]`, at `position`, and returns the state after it."""
        row, column = position
        state = state._replace(x=state.x.at[:, row, column].set(x))
        if context is not None:
            state = state._replace(condition=state.condition.at[:, row].set(context))
        condition = None if context is None else state.condition
        return self(state.x, condition)[:, row, column], state

    def end_row(self, state: State, context: Context | None = None) -> State:
        """Moves on to the next row; `context` belongs to the row that ends."""
        return state


class Layer(CausalMap):
    """A map to `[B, H, W, h]`; `functools.partial(Stack, layer=...)` of it is a body."""


class Body(CausalMap):
    """A map to the stream again, `[B, H, W, 2h]`: what stands between first convolution and head.

    `dropout_keys`, `[B]` keys of `jax.random`, are given where there is dropout.
    """

    @abc.abstractmethod
    def __call__(
        self, x: Array, condition: Array | None = None, dropout_keys: Array | None = None
    ) -> Array:
        """Maps `[B, H, W, 2h]` to `[B, H, W, 2h]`."""


def at_column(row: Array, column: ArrayLike) -> Array:
    """Returns `[B, F]`, one column of `[B, W, F]`."""
    return lax.dynamic_index_in_dim(row, column, axis=1, keepdims=False)


def put_column(row: Array, values: Array, column: ArrayLike) -> Array:
    """Returns `[B, W, F]` with `[B, F]` in one column."""
    return lax.dynamic_update_index_in_dim(row, values, column, axis=1)
