"""Pure functions of arrays: the recurrence, and how images are laid out for it and for matmuls.

There are no parameters here and no Flax. Kernels may import nothing else of the package.
"""

from pixel_rnn_jax.kernels.conv_lstm import cell, conv_lstm, conv_lstm_reference
from pixel_rnn_jax.kernels.shift import shift
from pixel_rnn_jax.kernels.skew import restarts, skew, unskew
from pixel_rnn_jax.kernels.strip import Strip
from pixel_rnn_jax.kernels.varying import varying_alike

__all__ = [
    "Strip",
    "cell",
    "conv_lstm",
    "conv_lstm_reference",
    "restarts",
    "shift",
    "skew",
    "unskew",
    "varying_alike",
]
