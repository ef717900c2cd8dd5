"""Masked convolution over space and over channel groups (section 3.4)."""

from typing import Literal

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax import kernels

Mask = Literal["A", "B"]


def channel_groups(features: int, channels: int) -> np.ndarray:
    """Returns the image channel that each of `features` belongs to, `[F]`.

    The groups are contiguous blocks, as equal in size as F allows: feature j belongs to channel
    j * C // F.

    Raises:
        ValueError: if there are fewer features than channels.
    """
    if features < channels:
        raise ValueError(f"{features} features cannot be split in groups for {channels} channels")
    return np.arange(features) * channels // features


def channel_mask(
    inputs: int, outputs: int, channels: int, mask: Mask, *, parts: int = 1
) -> np.ndarray:
    """Returns which features of a pixel may see which of the same pixel, booleans `[in, out]`.

    With mask A a group sees the groups of earlier channels, with mask B its own as well.

    Args:
        inputs: features of the input.
        outputs: features of the output, a multiple of `parts`.
        channels: C.
        mask: "A" or "B".
        parts: the output is that many blocks, each split in groups on its own: the four gates of an
            LSTM.
    """
    group_in = channel_groups(inputs, channels)[:, None]
    group_out = np.tile(channel_groups(outputs // parts, channels), parts)[None, :]
    return group_in < group_out if mask == "A" else group_in <= group_out


def visible_taps(kernel_size: tuple[int, int]) -> list[tuple[int, int]]:
    """Returns the offsets (rows, columns) of the taps earlier in raster order, then (0, 0).

    An odd side is centred on the pixel. A kernel of one row sees only columns to the left.
    """
    height, width = kernel_size
    above = [(row, col - width // 2) for row in range(-(height // 2), 0) for col in range(width)]
    left = [(0, col) for col in range(-(width // 2), 0)]
    return [*above, *left, (0, 0)]


class MaskedConv(nn.Module):
    """A convolution in which an output sees no value that comes after it.

    Only the taps that the mask leaves visible exist: the kernel is `[taps * F_in, F_out]`, and the
    convolution is one matmul with the shifted copies of its input, which is faster on CPUs than a
    convolution with zeros in its kernel, in the gradient above all. On the last tap, the pixel
    itself, the channel mask is applied at every use.

    Attributes:
        features: F_out of one part.
        channels: C, the number of channel groups.
        mask: "A" or "B".
        kernel_size: rows and columns, odd. The rows below and the columns to the right of the pixel
            are not looked at.
        parts: the output holds that many blocks of `features`, each split in groups on its own.
        spatial_axes: the axes of the input that are rows and columns.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    features: int
    channels: int
    mask: Mask = "B"
    kernel_size: tuple[int, int] = (1, 1)
    parts: int = 1
    spatial_axes: tuple[int, int] = (1, 2)
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Maps `[..., F_in]` (four axes) to `[..., parts * features]`."""
        inputs, outputs = x.shape[-1], self.parts * self.features
        taps = visible_taps(self.kernel_size)
        mask = channel_mask(inputs, outputs, self.channels, self.mask, parts=self.parts)
        if not mask.any():  # Mask A with one channel: the pixel itself is wholly hidden.
            taps, mask = taps[:-1], mask[:0]
        fan_in = (len(taps) - 1) * inputs + mask.sum(0).mean() if mask.size else len(taps) * inputs
        kernel = self.param(
            "kernel",
            nn.initializers.normal(max(fan_in, 1.0) ** -0.5),
            (len(taps) * inputs, outputs),
            self.param_dtype,
        )
        bias = self.param("bias", nn.initializers.zeros, (outputs,), self.param_dtype)
        hidden = len(kernel) - len(mask)
        kernel = jnp.concatenate([kernel[:hidden], jnp.where(mask, kernel[hidden:], 0)])
        patches = _shifted_copies(x.astype(self.dtype), taps, self.spatial_axes)
        bias = bias.astype(self.dtype).reshape((1,) * (x.ndim - 1) + (-1,))
        return patches @ kernel.astype(self.dtype) + bias


def _shifted_copies(x: Array, taps: list[tuple[int, int]], axes: tuple[int, int]) -> Array:
    """Concatenates along the features what each tap sees; outside the image there are zeros."""
    copies = []
    for offsets in taps:
        copy = x
        for axis, offset in zip(axes, offsets, strict=True):
            copy = kernels.shift(copy, offset, axis)
        copies.append(copy)
    return jnp.concatenate(copies, axis=-1)
