"""Pure functions of arrays: the recurrences, skewing, and products of rounded operands."""

from pixel_rnn_jax.model.kernels.matmul import add_bias as add_bias
from pixel_rnn_jax.model.kernels.matmul import matmul as matmul
from pixel_rnn_jax.model.kernels.recurrence import cell as cell
from pixel_rnn_jax.model.kernels.recurrence import conv_lstm as conv_lstm
from pixel_rnn_jax.model.kernels.skew import read_at as read_at
from pixel_rnn_jax.model.kernels.skew import restarts as restarts
from pixel_rnn_jax.model.kernels.skew import skew as skew
from pixel_rnn_jax.model.kernels.skew import unskew as unskew
from pixel_rnn_jax.model.kernels.varying import varying_alike as varying_alike
