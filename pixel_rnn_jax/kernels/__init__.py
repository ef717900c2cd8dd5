"""Pure functions of arrays: the recurrence, skewing, and products of rounded operands.

There are no parameters here and no Flax. Kernels may import nothing else of the package.
"""

from pixel_rnn_jax.kernels.matmul import add_bias, matmul
from pixel_rnn_jax.kernels.recurrence import cell, conv_lstm
from pixel_rnn_jax.kernels.skew import restarts, shift, skew, unskew
from pixel_rnn_jax.kernels.varying import varying_alike

__all__ = [
    "add_bias",
    "cell",
    "conv_lstm",
    "matmul",
    "restarts",
    "shift",
    "skew",
    "unskew",
    "varying_alike",
]
