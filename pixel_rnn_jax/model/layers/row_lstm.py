"""Row LSTM: the state is a row that moves from the top of the image to its bottom (section 3.1)."""

from typing import ClassVar

import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers.body import Context, Layer, State, at_column, put_column
from pixel_rnn_jax.model.layers.conv_lstm import ConvLSTM


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
        # Before the product, whose result is twice as large as its input.
        x_HxWxBxF = x.transpose(1, 2, 0, 3)
        condition = None if condition is None else condition.transpose(1, 2, 0, 3)
        gates_TxPxLx4F = self.lstm.gates(x_HxWxBxF, condition, axes=(0, 1))
        start, taps = self.lstm.recurrence(), self.lstm.taps
        h_HxWxBxF = kernels.conv_lstm(gates_TxPxLx4F, *start, taps=taps, dtype=self.dtype)
        return h_HxWxBxF.transpose(2, 0, 1, 3)

    def context(self, condition: Array) -> Context:
        return {"gates": self.lstm.condition_to_state(condition)}

    def init_state(self, batch: int, height: int, width: int) -> State:
        # `h` and `c`, `[B, W, h]`, are of this row up to the last pixel computed, and of the row
        # above after it; `above`, `[B, W, 4h]`, is the state-to-state map of the row above.
        _, h0, c0 = self.lstm.recurrence()
        h, c = (jnp.broadcast_to(start, (batch, width, self.features)) for start in (h0, c0))
        state = {"input": self.lstm.input_to_state.init_state(batch, height, width), "h": h, "c": c}
        return state | {"above": self._state_to_state(h)}

    def step(
        self, state: State, x: Array, column: ArrayLike, context: Context | None = None
    ) -> tuple[Array, State]:
        gates, inputs = self.lstm.input_to_state.step(state["input"], x, column)
        gates = gates + at_column(state["above"], column)
        if context is not None:
            gates = gates + at_column(context["gates"], column)
        h, c = kernels.cell(gates, at_column(state["c"], column))
        return h, state | {
            "input": inputs,
            "h": put_column(state["h"], h, column),
            "c": put_column(state["c"], c, column),
        }

    def end_row(self, state: State, context: Context | None = None) -> State:
        return state | {"above": self._state_to_state(state["h"])}

    def _state_to_state(self, h: Array) -> Array:
        kernel, _, _ = self.lstm.recurrence()
        seen = [kernels.read_at(h, tap, axis=1) for tap in self.lstm.taps]
        kernel = kernel.reshape(-1, kernel.shape[-1])
        return kernels.matmul(jnp.concatenate(seen, axis=-1), kernel, self.dtype)
