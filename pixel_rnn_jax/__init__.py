"""Pixel Recurrent Neural Networks: exact-likelihood models of images, in JAX and Flax.

    import pixel_rnn_jax as prnn

    config = prnn.ModelConfig(architecture="row_lstm")
    model = prnn.create(config, image_shape=(28, 28, 1), levels=2)
    nats = model.log_prob(images)  # [B]

Axes, in names and docstrings everywhere; a letter means one thing:

    B  batch                             T  scan steps
    H  rows (h: of one scale)            P  positions along a scanned line
    W  columns (w: of one scale)         L  lanes: images, or rows of packed images, side by side
    C  channels                          K  levels of a value
    F  features                          M  components of a mixture
    N  images of a set or file           Q  outputs of the head for a value
    S  scales                            k  side of a kernel, or number of its taps

In equations, h is also the LSTM's hidden state and the number of features of a layer's output, as
in the paper; the stream between layers has 2h features.
"""

from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.complete import Completion
from pixel_rnn_jax.image_model import ImageModel, create, load
from pixel_rnn_jax.models import dequantize

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "Config",
    "DataConfig",
    "ImageModel",
    "ModelConfig",
    "OptimizerConfig",
    "TrainConfig",
    "UserError",
    "__version__",
    "create",
    "dequantize",
    "load",
]
