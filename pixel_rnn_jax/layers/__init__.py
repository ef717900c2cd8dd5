"""Flax Linen layers, which own the parameters; they may import kernels.

A body layer is a subclass of `BodyLayer`, which says what its methods do; docs/layers.md writes
one. In all layers `features` is h. Linen calls `setup` to declare the parameters.
"""

from pixel_rnn_jax.layers.body import BodyLayer
from pixel_rnn_jax.layers.diagonal_bilstm import DiagonalBiLSTM
from pixel_rnn_jax.layers.masked_conv import MaskedConv
from pixel_rnn_jax.layers.pixel_cnn import PixelCNNLayer
from pixel_rnn_jax.layers.residual import Residual
from pixel_rnn_jax.layers.row_lstm import RowLSTM
from pixel_rnn_jax.layers.upsample import Upsampler

LAYERS: dict[str, type[BodyLayer]] = {
    "pixel_cnn": PixelCNNLayer,
    "row_lstm": RowLSTM,
    "diagonal_bilstm": DiagonalBiLSTM,
}
"""The body layers by the names that `model.architecture` takes; add one of your own."""

__all__ = ["LAYERS", "BodyLayer", "MaskedConv", "Residual", "Upsampler"]
