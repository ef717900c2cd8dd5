"""Flax Linen layers, which own the parameters. They may import kernels.

`RowLSTM`, `DiagonalBiLSTM` and `PixelCNNLayer` are body layers, each inside a `Residual`. In all
layers `features` is h, `channels` is C, and `condition` is the number of features F of what the
layer is conditioned on, 0 for nothing; `dtype` is that of the computation, `param_dtype` that of
the parameters. `state.py` describes the incremental form that generation uses.
"""

from pixel_rnn_jax.layers.diagonal_bilstm import DiagonalBiLSTM
from pixel_rnn_jax.layers.masked_conv import MaskedConv
from pixel_rnn_jax.layers.pixel_cnn import PixelCNNLayer
from pixel_rnn_jax.layers.residual import Residual
from pixel_rnn_jax.layers.row_lstm import RowLSTM
from pixel_rnn_jax.layers.upsample import Upsampler

__all__ = ["DiagonalBiLSTM", "MaskedConv", "PixelCNNLayer", "Residual", "RowLSTM", "Upsampler"]
