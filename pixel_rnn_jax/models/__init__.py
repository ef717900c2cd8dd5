"""Whole models: masked convolution, body layers, head; and chains of them."""

from pixel_rnn_jax.models.multi_scale import (
    Model,
    MultiScalePixelRNN,
    Scale,
    create,
    scales,
)
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

__all__ = [
    "Model",
    "MultiScalePixelRNN",
    "PixelRNN",
    "Scale",
    "create",
    "scales",
]
