"""ImageNet at 64x64: the paper's 3.63 bits/dim on the validation split (Row LSTM, table 6).

Command:   pixel-rnn-jax --config=imagenet64
           Variants: imagenet64:diagonal_bilstm, :pixel_cnn, :multi_scale (heights 32 and 64).
Data:      downsampled_imagenet/64x64, split as in imagenet32.py.
Hardware:  a large GPU or TPU, or several. On less, lower --config.train.batch_size, or give
           --config.model.remat=true --config.model.dtype=bfloat16.
Settings:  4 layers, h=512, no residual connections, head, batch size and RMSProp are the paper's,
           for the Row LSTM. The other settings are this project's own; the steps are 10 epochs.
Results:   not yet run.
"""

import ml_collections

from pixel_rnn_jax.runs.config import base_config


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the settings for an architecture or for several scales."""
    config = base_config(variant, architecture="row_lstm", scales=(32, 64))
    config.model.update(layers=4, features=512, head_features=1024, residual=False)
    config.data.name = "downsampled_imagenet/64x64"
    config.data.update(train_split="train[:99%]", validation_split="train[99%:]")
    config.data.test_split = "validation"
    config.optimizer.update(name="rmsprop", learning_rate=5e-4, weight_decay=0.0)
    config.train.update(steps=400_000, batch_size=32, eval_batch_size=32)
    config.train.update(log_every=100, eval_every=10_000, checkpoint_every=2000)
    return config
