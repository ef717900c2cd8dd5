"""The residual block of PixelCNN (table 1, figure 5)."""

from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from pixel_rnn_jax import kernels
from pixel_rnn_jax.layers.masked_conv import MaskedConv
from pixel_rnn_jax.layers.state import Context, State, at_column


class PixelCNNLayer(nn.Module):
    """ReLU, 1x1 (2h to h), ReLU, k x k (h to h), ReLU.

    The last 1x1 convolution of the block, back to 2h, belongs to `Residual`, as does the one after
    an LSTM layer. `kernel` is k, odd.
    """

    features_last: ClassVar = False

    features: int
    channels: int
    kernel: int = 3
    condition: int = 0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Declares the parameters (Linen calls it)."""

        def conv(inputs: int, side: int) -> MaskedConv:
            return MaskedConv(
                inputs,
                self.features,
                self.channels,
                kernel_size=(side, side),
                dtype=self.dtype,
                param_dtype=self.param_dtype,
            )

        self.reduce = conv(2 * self.features, 1)
        self.convolve = conv(self.features, self.kernel)
        if self.condition:
            self.condition_to_map = nn.Dense(
                self.features, use_bias=False, dtype=self.dtype, param_dtype=self.param_dtype
            )

    @property
    def reach(self) -> tuple[int, int]:
        """The gaps that a strip needs: rows and columns."""
        return self.kernel // 2, self.kernel // 2

    def __call__(self, x: Array, strip: kernels.Strip, condition: Array | None = None) -> Array:
        """Maps a strip, `[2h, Z]`, to a strip, `[h, Z]`.

        The condition broadcasts to `[B, H, W, F]`.
        """
        x = self.convolve(nn.relu(self.reduce(nn.relu(x), strip)), strip)
        if condition is not None:
            bias = jnp.moveaxis(self.condition_to_map(condition), -1, 0)
            x = x + strip.lay(jnp.broadcast_to(bias, (*bias.shape[:2], strip.height, strip.width)))
        return nn.relu(x)

    def context(self, condition: Array) -> Context:
        """Maps the condition of a row, `[B, W, F]`, to a bias of its k x k map."""
        return {"map": self.condition_to_map(condition)}

    def init_state(self, batch: int, width: int) -> State:
        """Returns the state before the first row, that of the k x k convolution."""
        return self.convolve.init_state(batch, width)

    def step(
        self, state: State, x: Array, column: ArrayLike, context: Context | None = None
    ) -> tuple[Array, State]:
        """Maps one pixel, `[B, 2h]` to `[B, h]`."""
        x, _ = self.reduce.step({}, nn.relu(x), column)
        x, state = self.convolve.step(state, nn.relu(x), column)
        return nn.relu(x if context is None else x + at_column(context["map"], column)), state

    def end_row(self, state: State, context: Context | None = None) -> State:
        """Moves on to the next row."""
        return self.convolve.end_row(state)
