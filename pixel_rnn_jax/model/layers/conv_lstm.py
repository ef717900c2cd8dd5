"""The parameters of one recurrence (section 3.3)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax.model.layers.masked_conv import MaskedConv


class ConvLSTM(nn.Module):
    """Masked input-to-state convolution, unmasked state-to-state convolution, learned start.

    The input-to-state convolution has mask B, and the features of each gate are split in groups of
    their own; the state-to-state convolution has its `taps` along the line.
    """

    features: int
    mask_groups: int
    condition: int = 0
    kernel_size: tuple[int, int] = (1, 1)
    taps: Sequence[int] = (0,)
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        h = self.features
        types: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.input_to_state = MaskedConv(
            2 * h, h, self.mask_groups, kernel_size=self.kernel_size, blocks=4, **types
        )
        scale = nn.initializers.normal((len(self.taps) * h) ** -0.5)
        self.state_to_state = self.param(
            "state_to_state", scale, (len(self.taps), h, 4 * h), self.param_dtype
        )
        if self.condition:  # Its map has no mask.
            self.condition_to_state = nn.Dense(4 * h, use_bias=False, **types)
        self.h0 = self.param("h0", nn.initializers.zeros, (h,), self.param_dtype)
        self.c0 = self.param("c0", nn.initializers.zeros, (h,), self.param_dtype)

    def gates(
        self, x: Array, condition: Array | None = None, axes: tuple[int, int] = (1, 2)
    ) -> Array:
        """Maps `[B, H, W, 2h]` to the sums that do not depend on the state, `[B, H, W, 4h]`."""
        gates = self.input_to_state(x, axes)
        return gates if condition is None else gates + self.condition_to_state(condition)

    def recurrence(self) -> tuple[Array, Array, Array]:
        """Returns the state-to-state kernel `[taps, h, 4h]`, h0 `[h]` and c0 `[h]`."""
        return self.state_to_state, self.h0, self.c0
