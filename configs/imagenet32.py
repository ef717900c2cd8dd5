"""ImageNet at 32x32: the paper's 3.86 bits/dim on the validation split (Row LSTM, table 6).

Command:   pixel-rnn-jax --config=imagenet32
           Variants: imagenet32:diagonal_bilstm, :pixel_cnn, :multi_scale (heights 8, 16 and 32).
Data:      downsampled_imagenet/32x32, from archives that you have (docs/data.md). There is no test
           part: as in the paper, the reported likelihood is of the validation split. A hundredth
           of the training images chooses the best checkpoint.
Hardware:  a large GPU or TPU, or several. --config.model.remat=true makes it fit one of 16 GB, and
           --config.train.micro_batches=4 needs less still (docs/scaling.md, Memory).
Settings:  12 layers, h=384, head, batch size and RMSProp are the paper's, for the Row LSTM. The
           rate, its schedule, clipping, average and steps (20 epochs) are this project's own.
Results:   not yet run.
"""

import ml_collections

from pixel_rnn_jax.runs.config import base_config


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the settings for an architecture or for several scales."""
    config = base_config(variant, architecture="row_lstm", scales=(8, 16, 32))
    config.model.update(layers=12, features=384, head_features=1024)
    config.data.name = "downsampled_imagenet/32x32"
    config.data.update(train_split="train[:99%]", validation_split="train[99%:]")
    config.data.test_split = "validation"
    config.optimizer.update(name="rmsprop", learning_rate=5e-4, weight_decay=0.0)
    config.train.update(steps=400_000, batch_size=64, eval_batch_size=64)
    config.train.update(log_every=100, eval_every=10_000, checkpoint_every=2000)
    return config
