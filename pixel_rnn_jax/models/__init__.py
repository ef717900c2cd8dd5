"""The distribution of images: the network of each scale, and what its outputs mean.

`PixelRNN` is the lowest public interface: pure functions of parameters and images. Models may
import layers, kernels, config and errors.
"""

from pixel_rnn_jax.models.likelihoods import bits_per_dim, dequantize
from pixel_rnn_jax.models.pixel_rnn import PixelRNN, Scale

__all__ = ["PixelRNN", "Scale", "bits_per_dim", "dequantize"]
