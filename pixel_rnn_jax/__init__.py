"""Pixel Recurrent Neural Networks: exact-likelihood models of images, in JAX and Flax.

    import pixel_rnn_jax as prnn

    config = prnn.ModelConfig(architecture="row_lstm")
    model = prnn.create(config, image_shape=(28, 28, 1), levels=2)
    nats = model.log_prob(images)  # [B]

Axes, in names and docstrings everywhere:

    B  batch            T  scan steps
    H  rows             P  positions along a scanned line
    W  columns          L  lanes: images, or rows of packed images, scanned side by side
    C  channels         K  levels of a value
    F  features         h  features of a layer's output; the stream between layers has 2h
"""

from pixel_rnn_jax.complete import Completion
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel, create, load
from pixel_rnn_jax.likelihoods import dequantize

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
    "create",
    "dequantize",
    "load",
]
