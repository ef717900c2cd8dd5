"""Pixel Recurrent Neural Networks: exact-likelihood models of images, in JAX and Flax.

    import pixel_rnn_jax as prnn

    config = prnn.ModelConfig(architecture="row_lstm")
    model = prnn.create(config, image_shape=(28, 28, 1), levels=2)
    nats = model.log_prob(images)  # [B]

Axes, in names and docstrings everywhere; a letter means one thing:

    B  batch                             T  scan steps
    H  rows                              P  positions along a scanned line
    W  columns                           L  lanes: images, or rows of packed images, side by side
    C  channels                          K  levels of a value
    F  features                          M  components of a mixture
    N  images of a set or file           Q  outputs of the head for a value
    S  scales                            k  side of a kernel
    D  numbers of a condition

Each scale has its own H and W. As in the paper, a layer has h features and the
stream between layers 2h, and an LSTM has the hidden state h and the cell state c.
"""

from etils import epy

# Each is imported when it is first used: JAX takes a second.
with epy.lazy_api_imports(globals()):
    from pixel_rnn_jax.data import Images
    from pixel_rnn_jax.data.config import DataConfig
    from pixel_rnn_jax.image_model import ImageModel, create
    from pixel_rnn_jax.model import dequantize, layers
    from pixel_rnn_jax.model.config import ModelConfig
    from pixel_rnn_jax.model.generation.complete import Completion
    from pixel_rnn_jax.model.pixel_rnn import PixelRNN
    from pixel_rnn_jax.runs.config import Config, OptimizerConfig, TrainConfig
    from pixel_rnn_jax.runs.source import from_pretrained, load, read_images
    from pixel_rnn_jax.system.devices import set_up
    from pixel_rnn_jax.system.errors import UserError
    from pixel_rnn_jax.training.fit import fit

__version__ = "0.1.0"

__all__ = [
    "Completion",
    "Config",
    "DataConfig",
    "ImageModel",
    "Images",
    "ModelConfig",
    "OptimizerConfig",
    "PixelRNN",
    "TrainConfig",
    "UserError",
    "__version__",
    "create",
    "dequantize",
    "fit",
    "from_pretrained",
    "layers",
    "load",
    "read_images",
    "set_up",
]
