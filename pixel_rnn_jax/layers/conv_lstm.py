"""A convolutional LSTM that owns the parameters of one recurrence (section 3.3)."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax import kernels
from pixel_rnn_jax.layers.masked_conv import MaskedConv


class ConvLSTM(nn.Module):
    """Masked input-to-state convolution, unmasked state-to-state convolution, learned start.

    Attributes:
        features: h.
        channels: C.
        kernel_size: of the input-to-state convolution (mask B, each gate split in groups on its
            own).
        taps: of the state-to-state convolution along the line.
        condition: features of what the layer is conditioned on; 0 for nothing.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    features: int
    channels: int
    kernel_size: tuple[int, int]
    taps: Sequence[int]
    condition: int = 0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Declares the parameters (Linen calls it)."""
        h = self.features
        self.input_to_state = MaskedConv(
            2 * h,
            h,
            self.channels,
            kernel_size=self.kernel_size,
            parts=4,
            spatial_axes=(0, 1),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
        )
        scale = nn.initializers.normal((len(self.taps) * h) ** -0.5)
        self.state_to_state = self.param(
            "state_to_state", scale, (len(self.taps), h, 4 * h), self.param_dtype
        )
        if self.condition:
            self.condition_to_state = nn.Dense(
                4 * h, use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype
            )
        self.h0 = self.param("h0", nn.initializers.zeros, (h,), self.param_dtype)
        self.c0 = self.param("c0", nn.initializers.zeros, (h,), self.param_dtype)

    def __call__(
        self, x: Array, condition: Array | None = None, *, restart: np.ndarray | None = None
    ) -> Array:
        """Runs over a map in scan order.

        Args:
            x: `[T, P, L, 2h]`, the input.
            condition: `[T, P, L, condition]`, or with axes of size 1, or None.
            restart: see `kernels.conv_lstm`.

        Returns:
            `[T, P, L, h]`.
        """
        gates = self.input_to_state(x)
        if condition is not None:
            gates = gates + self.context(condition)
        kernel, h0, c0 = self.recurrence()
        return kernels.conv_lstm(gates, kernel, h0, c0, taps=self.taps, restart=restart)

    def context(self, condition: Array) -> Array:
        """Maps what the layer is conditioned on to a bias of the gates, `[..., 4h]`; unmasked."""
        return self.condition_to_state(condition)

    def recurrence(self) -> tuple[Array, Array, Array]:
        """Returns the state-to-state kernel `[taps, h, 4h]`, h0 `[h]` and c0 `[h]`."""
        kernel, h0, c0 = (p.astype(self.dtype) for p in (self.state_to_state, self.h0, self.c0))
        return kernel, h0, c0
