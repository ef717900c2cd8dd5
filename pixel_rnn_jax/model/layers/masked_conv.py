"""Masked convolution over space and over channel groups (section 3.4)."""

from typing import Literal, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import DTypeLike

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers.body import Position, at_column, put_column

Mask = Literal["A", "B"]


def channel_mask(
    inputs: int, outputs: int, groups: int, mask: Mask, *, blocks: int = 1, open_blocks: int = 0
) -> np.ndarray:
    """Returns the inputs that each output may see within a pixel, `[inputs, outputs]` booleans.

    The groups are contiguous and as equal in size as F allows: feature j is in j * groups // F.
    With mask A a group sees earlier groups, with mask B itself as well. The outputs are `blocks`
    blocks, such as the gates of an LSTM, each split in groups of its own; the first `open_blocks`
    see all inputs.
    """
    features = outputs // blocks
    group_in = (np.arange(inputs) * groups // inputs)[:, None]
    group_out = np.tile(np.arange(features) * groups // features, blocks)[None, :]
    group_out[:, : open_blocks * features] = groups  # After all others.
    return group_in < group_out if mask == "A" else group_in <= group_out


def visible_taps(kernel_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns the offsets (row, column) of the taps that come earlier in raster order, then (0, 0).

    The kernel, of odd sides, is centred on the pixel.
    """
    height, width = kernel_size
    above = [(row, col - width // 2) for row in range(-(height // 2), 0) for col in range(width)]
    left = [(0, col) for col in range(-(width // 2), 0)]
    return [*above, *left, (0, 0)]


class ConvState(NamedTuple):
    """What a `MaskedConv` remembers of earlier pixels; None is for taps that it does not have."""

    row: Array | None  # [B, k // 2 + W, inputs], the inputs in this row, after zeros.
    rows: Array | None  # [B, k // 2, W, inputs], the inputs in the rows above.
    above: Array | None  # [B, W, outputs], the term of the rows above in this row.


class MaskedConv(nn.Module):
    """A convolution in which an output sees no value that comes after it.

    Only the visible taps have parameters: the kernel is `[taps * inputs, blocks * features]`, and
    the convolution is one matmul with shifted copies of the input. On a CPU a training step of a
    PixelCNN takes a seventh of the time that it takes by a convolution with zeros in its kernel.
    The channel mask is applied to the last tap, the pixel itself, at every use.

    Attributes:
        inputs: Features of the input.
        features: Features of one block of the output.
        mask: See `channel_mask`.
        kernel_size: Rows and columns, both odd; of these the visible taps are used.
        blocks, open_blocks: See `channel_mask`.
        taps: The offsets (row, column) of its taps, of which the last is (0, 0); () takes the
            visible ones of `kernel_size`. With others there is no incremental form but `last_row`.
    """

    inputs: int
    features: int
    mask_groups: int
    mask: Mask = "B"
    kernel_size: tuple[int, int] = (1, 1)
    blocks: int = 1
    open_blocks: int = 0
    taps: tuple[tuple[int, int], ...] = ()
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        outputs = self.blocks * self.features
        blocks = dict(blocks=self.blocks, open_blocks=self.open_blocks)
        mask = channel_mask(self.inputs, outputs, self.mask_groups, self.mask, **blocks)
        taps = self.taps or tuple(visible_taps(self.kernel_size))
        if not mask.any():  # Mask A with one channel: the pixel itself is wholly hidden.
            taps, mask = taps[:-1], mask[:0]
        self.used_taps, self.last_mask = taps, mask
        rows = len(taps) * self.inputs
        fan_in = rows - len(mask) + mask.sum() / outputs
        scale = nn.initializers.normal(max(fan_in, 1.0) ** -0.5)
        self.kernel = self.param("kernel", scale, (rows, outputs), self.param_dtype)
        self.bias = self.param("bias", self.bias_init, (outputs,), self.param_dtype)

    def __call__(self, x: Array, axes: tuple[int, int] = (1, 2)) -> Array:
        """Maps `[B, H, W, inputs]` to `[B, H, W, outputs]`; `axes` says where H and W are.

        A 1x1 convolution maps `[..., inputs]`.
        """
        x, (rows, columns) = x.astype(self.param_dtype), axes
        seen = [kernels.read_at(kernels.read_at(x, r, rows), c, columns) for r, c in self.used_taps]
        return self._product(jnp.concatenate(seen, axis=-1), self._masked_kernel())

    def last_row(self, rows: Array) -> Array:
        """Maps the last of some rows, `[B, R, W, inputs]` to `[B, W, outputs]`; no tap is below."""
        rows = rows.astype(self.param_dtype)
        seen = [kernels.read_at(rows[:, row - 1], column, axis=1) for row, column in self.used_taps]
        return self._product(jnp.concatenate(seen, axis=-1), self._masked_kernel())

    def init_state(self, batch: int, height: int, width: int) -> "ConvState":
        """Returns the state before the first row."""
        above, half = (size // 2 for size in self.kernel_size)

        def zeros(*shape: int) -> Array:
            return jnp.zeros((batch, *shape), self.param_dtype)

        row = zeros(half + width, self.inputs) if half or above else None
        rows = zeros(above, width, self.inputs) if above else None
        return ConvState(row, rows, zeros(width, self.blocks * self.features) if above else None)

    def step(self, state: "ConvState", x: Array, position: Position) -> tuple[Array, "ConvState"]:
        """Maps one pixel, `[B, inputs]` to `[B, blocks * features]`, and remembers it.

        Given its first groups alone, it maps to the same groups of the masked blocks.
        """
        _, column = position
        height, half = (size // 2 for size in self.kernel_size)
        x = x.astype(self.param_dtype)
        seen = []
        if state.row is not None:
            left = lax.dynamic_slice_in_dim(state.row, column, half, axis=1)
            seen.append(left.reshape(x.shape[0], half * self.inputs))
        if len(self.last_mask):
            seen.append(x)
        above = height * self.kernel_size[1] * self.inputs
        out = self._product(jnp.concatenate(seen, axis=-1), self._masked_kernel()[above:])
        if state.above is not None:
            out = out + self.first_groups(at_column(state.above, column), x.shape[-1])
        return out, self.remember(state, x, position)

    def remember(self, state: "ConvState", x: Array, position: Position) -> "ConvState":
        """Returns the state in which the pixel at `position` has the input x, `[B, inputs]`."""
        if state.row is None or x.shape[-1] < self.inputs:
            return state
        column = position[1] + self.kernel_size[1] // 2
        return state._replace(row=put_column(state.row, x.astype(self.param_dtype), column))

    def end_row(self, state: "ConvState") -> "ConvState":
        """Moves on to the next row: one matmul gives the terms of the rows above."""
        if state.row is None or state.rows is None:
            return state
        height, half = (size // 2 for size in self.kernel_size)
        rows = jnp.concatenate([state.rows[:, 1:], state.row[:, None, half:]], axis=1)
        taps = [tap for tap in self.used_taps if tap[0] < 0]
        seen = [kernels.read_at(rows[:, height + row], column, axis=1) for row, column in taps]
        kernel = self.kernel[: len(taps) * self.inputs]
        above = kernels.matmul(jnp.concatenate(seen, axis=-1), kernel, self.dtype)
        return state._replace(rows=rows, above=above)

    def first_groups(self, outputs: Array, given: int) -> Array:
        """Returns the `outputs` `[..., outputs]` that a step has if some inputs are `given`."""
        if given == self.inputs:
            return outputs
        groups = (given - 1) * self.mask_groups // self.inputs + 1
        size = -(-groups * self.features // self.mask_groups)
        blocks = outputs.reshape(*outputs.shape[:-1], self.blocks, self.features)
        return lax.collapse(blocks[..., self.open_blocks :, :size], blocks.ndim - 2)

    def _product(self, seen: Array, kernel: Array) -> Array:
        rows, given = (
            lax.collapse(seen, 0, seen.ndim - 1),
            self.inputs - len(kernel) + seen.shape[-1],
        )
        kernel = self.first_groups(kernel[: rows.shape[-1]], given)
        bias = self.first_groups(self.bias, given)
        product = kernels.add_bias(kernels.matmul(rows, kernel, self.dtype), bias)
        return product.reshape(*seen.shape[:-1], product.shape[-1])

    def _masked_kernel(self) -> Array:
        earlier = len(self.kernel) - len(self.last_mask)
        last = jnp.where(self.last_mask, self.kernel[earlier:], 0)
        return jnp.concatenate([self.kernel[:earlier], last])
