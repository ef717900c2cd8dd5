"""The residual block of PixelCNN (table 1, figure 5)."""

import flax.linen as nn
from jax import Array

from pixel_rnn_jax.model.layers.body import Context, Layer, Position, State, at_column
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv


class PixelCNNLayer(Layer):
    """ReLU, 1x1 (2h to h), ReLU, k x k (h to h), ReLU.

    The last 1x1 convolution of the block, back to 2h, belongs to `Residual`, as does the one after
    an LSTM layer. `kernel` is k, odd.
    """

    narrow = True
    kernel: int = 3

    def setup(self) -> None:
        h, groups, size = self.features, self.mask_groups, (self.kernel, self.kernel)
        self.reduce = MaskedConv(2 * h, h, groups, **self.dtypes)
        self.convolve = MaskedConv(h, h, groups, kernel_size=size, **self.dtypes)
        if self.condition:
            self.condition_to_map = nn.Dense(h, use_bias=False, **self.dtypes)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        x = self.convolve(nn.relu(self.reduce(nn.relu(x))))
        return nn.relu(x if condition is None else x + self.condition_to_map(condition))

    def context(self, condition: Array) -> Context:
        return self.condition_to_map(condition)

    def init_state(self, batch: int, height: int, width: int) -> State:
        return self.convolve.init_state(batch, height, width)

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Array, State]:
        x, given = self.reduce(nn.relu(x)), x.shape[-1]
        x, state = self.convolve.step(state, nn.relu(x), position)
        if context is not None:
            x = x + self.reduce.first_groups(at_column(context, position[1]), given)
        return nn.relu(x), state

    def end_row(self, state: State, context: Context | None = None) -> State:
        return self.convolve.end_row(state)
