"""The parameters of one recurrence (section 3.3)."""

from collections.abc import Sequence

import flax.linen as nn
from jax import Array

from pixel_rnn_jax.layers.body import BodyLayer
from pixel_rnn_jax.layers.masked_conv import MaskedConv


class ConvLSTM(BodyLayer):
    """Masked input-to-state convolution, unmasked state-to-state convolution, learned start.

    Attributes:
        kernel_size: Of the input-to-state convolution, which has mask B; the features of each gate
            are split in groups of their own.
        taps: Of the state-to-state convolution along the line.
    """

    kernel_size: tuple[int, int] = (1, 1)
    taps: Sequence[int] = (0,)

    def setup(self) -> None:
        """Parameters: both convolutions, the map of the condition, h0 and c0."""
        h = self.features
        self.input_to_state = MaskedConv(
            2 * h, h, self.mask_groups, kernel_size=self.kernel_size, blocks=4, **self.dtypes
        )
        scale = nn.initializers.normal((len(self.taps) * h) ** -0.5)
        self.state_to_state = self.param(
            "state_to_state", scale, (len(self.taps), h, 4 * h), self.param_dtype
        )
        if self.condition:  # Its map has no mask.
            self.condition_to_state = nn.Dense(4 * h, use_bias=False, **self.dtypes)
        self.h0 = self.param("h0", nn.initializers.zeros, (h,), self.param_dtype)
        self.c0 = self.param("c0", nn.initializers.zeros, (h,), self.param_dtype)

    def gates(self, x: Array, condition: Array | None = None) -> Array:
        """Maps `[B, H, W, 2h]` to the sums that do not depend on the state, `[B, H, W, 4h]`."""
        gates = self.input_to_state(x)
        return gates if condition is None else gates + self.condition_to_state(condition)

    def recurrence(self) -> tuple[Array, Array, Array]:
        """Returns the state-to-state kernel `[taps, h, 4h]`, h0 `[h]` and c0 `[h]`."""
        return self.state_to_state, self.h0, self.c0
