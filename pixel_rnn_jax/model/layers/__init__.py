"""Flax Linen modules, which own the parameters; docs/layers.md writes a layer and a body.

In all of them `features` is h. Linen calls `setup` to declare the parameters.
"""

import functools
from collections.abc import Callable
from typing import Any

from pixel_rnn_jax.model.layers.body import Body as Body
from pixel_rnn_jax.model.layers.body import Layer as Layer
from pixel_rnn_jax.model.layers.diagonal_bilstm import DiagonalBiLSTM as DiagonalBiLSTM
from pixel_rnn_jax.model.layers.gated_pixel_cnn import GatedPixelCNN as GatedPixelCNN
from pixel_rnn_jax.model.layers.head import Head as Head
from pixel_rnn_jax.model.layers.linear_rnn import LinearRNN as LinearRNN
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv as MaskedConv
from pixel_rnn_jax.model.layers.pixel_cnn import PixelCNNLayer as PixelCNNLayer
from pixel_rnn_jax.model.layers.row_lstm import RowLSTM as RowLSTM
from pixel_rnn_jax.model.layers.stack import Residual as Residual
from pixel_rnn_jax.model.layers.stack import Stack as Stack
from pixel_rnn_jax.model.layers.stack import of_config as of_config
from pixel_rnn_jax.model.layers.upsample import Upsampler as Upsampler

LAYERS: dict[str, Callable[..., Any]] = {
    "pixel_cnn": PixelCNNLayer,
    "row_lstm": RowLSTM,
    "diagonal_bilstm": DiagonalBiLSTM,
    "linear_rnn": LinearRNN,
}
BODIES: dict[str, Callable[..., Any]] = {"gated_pixel_cnn": GatedPixelCNN}
"""What `model.architecture` names: a layer, from which a `Stack` is made, or a whole body. Add your
own, a class or a `functools.partial` of one."""

HEADS: dict[str, Callable[..., Head]] = {"relu_1x1": Head}
"""The heads by the names that `model.head` takes."""


def body(architecture: str) -> Callable[..., Body]:
    """Returns the body that `model.architecture` names, as a class or a partial of one."""
    if architecture in BODIES:
        return BODIES[architecture]
    return functools.partial(Stack, layer=LAYERS[architecture])


def is_recurrent(architecture: str) -> bool:
    """Whether a body or its layers scan the images."""
    class_: Any = (LAYERS | BODIES)[architecture]
    return bool(getattr(class_, "func", class_).recurrent)
