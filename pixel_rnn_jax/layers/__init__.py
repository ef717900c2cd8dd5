"""Flax Linen layers, which own the parameters. They may import kernels.

`RowLSTM`, `DiagonalBiLSTM` and `PixelCNNLayer` are body layers, each inside a `Residual`. In all
layers `features` is h, `channels` is the number of channels that the masks tell apart, C or 1, and
`condition` is the number of features F of the condition, 0 for none; `dtype` is that of the
operands of matrix products, `param_dtype` that of parameters, sums and states. Linen calls `setup`
to declare the parameters. `state.py` describes the incremental form for generation.
"""

from pixel_rnn_jax.layers.diagonal_bilstm import DiagonalBiLSTM
from pixel_rnn_jax.layers.masked_conv import MaskedConv
from pixel_rnn_jax.layers.pixel_cnn import PixelCNNLayer
from pixel_rnn_jax.layers.residual import Residual
from pixel_rnn_jax.layers.row_lstm import RowLSTM
from pixel_rnn_jax.layers.upsample import Upsampler

__all__ = ["DiagonalBiLSTM", "MaskedConv", "PixelCNNLayer", "Residual", "RowLSTM", "Upsampler"]
