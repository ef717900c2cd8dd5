"""Flax Linen layers: they own the parameters."""

from pixel_rnn_jax.layers.diagonal_bilstm import DiagonalBiLSTM
from pixel_rnn_jax.layers.masked_conv import MaskedConv
from pixel_rnn_jax.layers.pixel_cnn import PixelCNNLayer
from pixel_rnn_jax.layers.residual import Residual
from pixel_rnn_jax.layers.row_lstm import RowLSTM
from pixel_rnn_jax.layers.upsample import Upsampler

__all__ = ["DiagonalBiLSTM", "MaskedConv", "PixelCNNLayer", "Residual", "RowLSTM", "Upsampler"]
