"""Diagonal BiLSTM: the state is a diagonal that moves from either upper corner (section 3.2)."""

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.layers.body import Context, Layer, Position, State, at_column, put_column
from pixel_rnn_jax.model.layers.conv_lstm import ConvLSTM

CPU_IMAGES_PER_LANE = 4
"""Images per lane on a CPU, where a longer scan of fuller lines is faster."""


class DiagonalState(NamedTuple):
    """The left direction's state, and the rows that the right direction needs at the row's end."""

    h: Array  # [B, h], the left direction's, at the last pixel.
    c: Array  # [B, h], likewise.
    row: Array  # [B, W, h], the left direction's h in this row so far.
    above: Array  # [B, W, 4h], the row above in the left direction's gates.
    x: Array  # [B, W, 2h], the inputs of this row so far.
    right: Array  # [B, W, h], the right direction's h in the row above.


class DiagonalBiLSTM(Layer):
    """One Diagonal BiLSTM layer.

    The right direction works on the map flipped left-right *before* it is skewed. Its output is
    shifted down by one row, so that it adds only what lies in complete rows above. Each row starts
    from the learned initial state at its first column (in a literal skewing, the state would first
    evolve over the padding).

    Attributes:
        images_per_lane: The largest number of images that follow one another in a lane of the scan
            (see `kernels.skew`), of which the largest divisor of the batch is used. A larger number
            is less work in more steps; 0 chooses by platform.
    """

    recurrent: ClassVar[bool] = True

    images_per_lane: int = 0

    def setup(self) -> None:
        taps = (0, -1)  # The pixel on the left; the pixel above.
        fields = self.features, self.mask_groups, self.condition
        self.left = ConvLSTM(*fields, taps=taps, **self.dtypes)
        self.right = ConvLSTM(*fields, taps=taps, **self.dtypes)

    def __call__(self, x: Array, condition: Array | None = None) -> Array:
        left, right = (lstm.gates(x, condition) for lstm in (self.left, self.right))
        left = self._direction(self.left, left)
        right = self._direction(self.right, right[:, :, ::-1])[:, :, ::-1]
        return left + kernels.read_at(right, -1, axis=1)  # Down by one row.

    def _direction(self, lstm: ConvLSTM, gates: Array) -> Array:
        """Runs the recurrence over gates, `[B, H, W, 4h]`, to the right: `[B, H, W, h]`."""
        batch, height, width = gates.shape[:3]
        pack = 1
        if isinstance(batch, int):  # And no symbol of `jax.export`.
            by_platform = CPU_IMAGES_PER_LANE if jax.default_backend() == "cpu" else 1
            most = min(self.images_per_lane or by_platform, batch)
            pack = max((size for size in range(1, most + 1) if batch % size == 0), default=1)
        h = kernels.conv_lstm(
            kernels.skew(gates, pack=pack),
            *lstm.recurrence(),
            taps=lstm.taps,
            restart=kernels.restarts(height, width, pack=pack),
            dtype=self.dtype,
        )
        return kernels.unskew(h, width=width, pack=pack)

    def context(self, condition: Array) -> Context:
        return self.left.condition_to_state(condition), self.right.condition_to_state(condition)

    def init_state(self, batch: int, height: int, width: int) -> State:
        h = self.features
        rows = (jnp.zeros((batch, width, size), self.param_dtype) for size in (h, 4 * h, 2 * h, h))
        return DiagonalState(*self._row_start(batch), *rows)

    def _row_start(self, batch: int) -> list[Array]:
        _, *start = self.left.recurrence()
        return [jnp.broadcast_to(x, (batch, self.features)) for x in start]

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Array, State]:
        _, column = position
        (kernel, _), _, _ = self.left.recurrence()
        # At the first column, which has no pixel on its left, h is the initial state.
        gates = self.left.input_to_state(x)
        gates = gates + self._matmul(state.h, kernel) + at_column(state.above, column)
        if context is not None:
            gates = gates + at_column(context[0], column)
        h, c = kernels.cell(gates, state.c)
        row, inputs = put_column(state.row, h, column), put_column(state.x, x, column)
        return h + at_column(state.right, column), state._replace(h=h, c=c, row=row, x=inputs)

    def end_row(self, state: State, context: Context | None = None) -> State:
        (_, kernel_above), _, _ = self.left.recurrence()
        above = self._matmul(state.row, kernel_above)
        right = self._right_row(state.x, state.right, None if context is None else context[1])
        h, c = self._row_start(state.h.shape[0])
        return state._replace(h=h, c=c, above=above, right=right)

    def _right_row(self, x: Array, above: Array, bias: Array | None) -> Array:
        """Returns the right direction's h of a row, `[B, W, h]`, given the row above."""

        def in_scan_order(row: Array) -> Array:  # [B, W, F] to [T = W, P = 1, L = B, F]
            return row[:, ::-1].transpose(1, 0, 2)[:, None]

        (kernel, kernel_above), h0, c0 = self.right.recurrence()
        gates = self.right.input_to_state(x)
        gates = in_scan_order(gates + self._matmul(above, kernel_above))
        if bias is not None:
            gates = gates + in_scan_order(bias)
        h = kernels.conv_lstm(gates, kernel[None], h0, c0, taps=(0,), dtype=self.dtype)
        return h[:, 0].transpose(1, 0, 2)[:, ::-1]

    def _matmul(self, x: Array, kernel: Array) -> Array:
        return kernels.matmul(x, kernel, self.dtype)
