"""Flax Linen modules, which own the parameters; docs/layers.md writes a layer and a body.

In all of them `features` is h. Linen calls `setup` to declare the parameters.
"""

import functools
from collections.abc import Callable

from pixel_rnn_jax.model.layers.body import Body as Body
from pixel_rnn_jax.model.layers.body import Layer as Layer
from pixel_rnn_jax.model.layers.build import build as build
from pixel_rnn_jax.model.layers.build import check_fields as check_fields
from pixel_rnn_jax.model.layers.check import check as check
from pixel_rnn_jax.model.layers.diagonal_bilstm import DiagonalBiLSTM as DiagonalBiLSTM
from pixel_rnn_jax.model.layers.gated_pixel_cnn import GatedPixelCNN as GatedPixelCNN
from pixel_rnn_jax.model.layers.head import Head as Head
from pixel_rnn_jax.model.layers.linear_rnn import LinearRNN as LinearRNN
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv as MaskedConv
from pixel_rnn_jax.model.layers.pixel_cnn import PixelCNNLayer as PixelCNNLayer
from pixel_rnn_jax.model.layers.row_lstm import RowLSTM as RowLSTM
from pixel_rnn_jax.model.layers.stack import Residual as Residual
from pixel_rnn_jax.model.layers.stack import ResidualBody as ResidualBody
from pixel_rnn_jax.model.layers.stack import Stack as Stack
from pixel_rnn_jax.model.layers.upsample import Upsampler as Upsampler

BODIES: dict[str, Callable[..., Body]] = {
    "pixel_cnn": functools.partial(Stack, layer=PixelCNNLayer),
    "row_lstm": functools.partial(Stack, layer=RowLSTM),
    "diagonal_bilstm": functools.partial(Stack, layer=DiagonalBiLSTM),
    "linear_rnn": functools.partial(Stack, layer=LinearRNN),
    "gated_pixel_cnn": GatedPixelCNN,
}
"""The bodies by the names that `model.architecture` takes: classes, or partials of classes."""

HEADS: dict[str, Callable[..., Head]] = {"relu_1x1": Head}
"""The heads by the names that `model.head` takes."""
