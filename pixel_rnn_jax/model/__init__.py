"""The distribution of images: networks, likelihoods of their outputs, scales."""

from pixel_rnn_jax.model.likelihoods import bits_per_dim, dequantize
from pixel_rnn_jax.model.scale import Scale, chain

__all__ = ["Scale", "bits_per_dim", "chain", "dequantize"]
