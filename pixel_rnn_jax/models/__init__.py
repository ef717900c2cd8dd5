"""Whole models: masked convolution, body layers, head."""

from pixel_rnn_jax.models.pixel_rnn import PixelRNN

__all__ = ["PixelRNN"]
