"""Row LSTM: the state is a row that moves from the top of the image to its bottom (section 3.1)."""

from typing import Any, ClassVar, NamedTuple

import jax.numpy as jnp
from jax import Array

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers.body import Context, Layer, Position, State, at_column, put_column
from pixel_rnn_jax.model.layers.conv_lstm import ConvLSTM


class RowState(NamedTuple):
    """h and c are the states in this row up to the last pixel, and in the row above after it."""

    inputs: Any  # The state of the input-to-state convolution.
    h: Array  # [B, W, h]
    c: Array  # [B, W, h]
    above: Array  # [B, W, 4h], the state-to-state map of the row above.


class RowLSTM(Layer):
    """One Row LSTM layer. `kernel` is k, the width of both convolutions, odd and at least 3."""

    recurrent: ClassVar[bool] = True

    kernel: int = 3

    def setup(self) -> None:
        half = self.kernel // 2
        self.lstm = ConvLSTM(
            self.features,
            self.mask_groups,
            self.condition,
            kernel_size=(1, self.kernel),
            taps=tuple(range(-half, half + 1)),
            **self.dtypes,
        )

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        # [H, W, B, F], before the product, whose result is twice as large as its input.
        x = x.transpose(1, 2, 0, 3)
        condition = None if condition is None else condition.transpose(1, 2, 0, 3)
        gates = self.lstm.gates(x, condition, axes=(0, 1))
        start, taps = self.lstm.recurrence(), self.lstm.taps
        h = kernels.conv_lstm(gates, *start, taps=taps, dtype=self.dtype)
        return h.transpose(2, 0, 1, 3)

    def context(self, condition: Array) -> Context:
        return self.lstm.condition_to_state(condition)

    def init_state(self, batch: int, height: int, width: int) -> State:
        _, h0, c0 = self.lstm.recurrence()
        h, c = (jnp.broadcast_to(start, (batch, width, self.features)) for start in (h0, c0))
        inputs = self.lstm.input_to_state.init_state(batch, height, width)
        return RowState(inputs, h, c, self._state_to_state(h))

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Array, State]:
        _, column = position
        gates, inputs = self.lstm.input_to_state.step(state.inputs, x, position)
        gates = gates + at_column(state.above, column)
        if context is not None:
            gates = gates + at_column(context, column)
        h, c = kernels.cell(gates, at_column(state.c, column))
        rows = put_column(state.h, h, column), put_column(state.c, c, column)
        return h, RowState(inputs, *rows, state.above)

    def end_row(self, state: State, context: Context | None = None) -> State:
        return state._replace(above=self._state_to_state(state.h))

    def _state_to_state(self, h: Array) -> Array:
        kernel, _, _ = self.lstm.recurrence()
        seen = [kernels.read_at(h, tap, axis=1) for tap in self.lstm.taps]
        kernel = kernel.reshape(-1, kernel.shape[-1])
        return kernels.matmul(jnp.concatenate(seen, axis=-1), kernel, self.dtype)
