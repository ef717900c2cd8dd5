"""Pure functions of arrays: the recurrence, and how an image is laid out for it.

There are no parameters here and no Flax. Kernels may import nothing else of the package.
"""

from pixel_rnn_jax.kernels.conv_lstm import cell, conv_lstm, conv_lstm_reference
from pixel_rnn_jax.kernels.shift import shift
from pixel_rnn_jax.kernels.skew import restarts, skew, unskew

__all__ = ["cell", "conv_lstm", "conv_lstm_reference", "restarts", "shift", "skew", "unskew"]
