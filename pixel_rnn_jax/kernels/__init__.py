"""Pure functions of arrays: no parameters, no Flax."""

from pixel_rnn_jax.kernels.conv_lstm import cell, conv_lstm, conv_lstm_reference
from pixel_rnn_jax.kernels.shift import shift
from pixel_rnn_jax.kernels.skew import restarts, skew, unskew

__all__ = ["cell", "conv_lstm", "conv_lstm_reference", "restarts", "shift", "skew", "unskew"]
