"""The residual block of PixelCNN (table 1, figure 5)."""

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.kernels import PaddedRows
from pixel_rnn_jax.layers.masked_conv import MaskedConv
from pixel_rnn_jax.layers.state import BodyLayer, Context, State, at_column


class PixelCNNLayer(BodyLayer):
    """ReLU, 1x1 (2h to h), ReLU, k x k (h to h), ReLU.

    The last 1x1 convolution of the block, back to 2h, belongs to `Residual`, as does the one after
    an LSTM layer. `kernel` is k, odd.
    """

    kernel: int = 3

    def setup(self) -> None:
        """Parameters: both convolutions and the map of the condition."""
        h, channels, size = self.features, self.channels, (self.kernel, self.kernel)
        self.reduce = MaskedConv(2 * h, h, channels, **self.dtypes)
        self.convolve = MaskedConv(h, h, channels, kernel_size=size, **self.dtypes)
        if self.condition:
            self.condition_to_map = nn.Dense(h, use_bias=False, **self.dtypes)

    @property
    def halo(self) -> tuple[int, int]:
        """Rows and columns of padding that the convolutions need."""
        return self.kernel // 2, self.kernel // 2

    def __call__(self, x: Array, layout: PaddedRows, condition: Array | None = None) -> Array:
        """Maps padded rows, `[2h, Z]`, to `[h, Z]`."""
        x = self.convolve(nn.relu(self.reduce(nn.relu(x), layout)), layout)
        if condition is not None:
            bias = jnp.moveaxis(self.condition_to_map(condition), -1, 0)
            shape = *bias.shape[:2], layout.height, layout.width
            x = x + layout.pack(jnp.broadcast_to(bias, shape))
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
