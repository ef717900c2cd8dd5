"""CIFAR-10: the paper's 3.00 bits/dim (Diagonal BiLSTM), 3.07 (Row LSTM), 3.14 (PixelCNN), table 5.

Command:   pixel-rnn-jax --config=cifar10
           pixel-rnn-jax --config=cifar10:row_lstm   (or :pixel_cnn, :linear_rnn)
           pixel-rnn-jax --config=cifar10:multi_scale
           makes it a Multi-Scale PixelRNN with images of height 16 and 32.
Data:      cifar10, downloaded at the first use (docs/data.md). It has no validation part, so that
           the last 5,000 training images are held out for it.
Hardware:  one GPU or TPU. For a CPU there are smaller models: a Diagonal BiLSTM had 3.2329 ± 0.0068
           bits/dim after 180 minutes, a linear RNN 3.1348 ± 0.0068 after 17 hours, by the commands
           of docs/results.md.
Settings:  width, depth (12 layers, PixelCNN 15), head, batch size and RMSProp are the paper's. It
           gives no learning rate; the rate, its schedule, the clipping, the average and the number
           of steps (107 epochs) are this project's own.
Results:   not yet run at this size. With 3 layers, h=48 and a mixture of logistics, in equal time
           of about an hour on a CPU core (their own rates and steps, see docs/logs): PixelCNN
           3.3612 ± 0.0068 bits/dim, Row LSTM 3.3101 ± 0.0068, Diagonal BiLSTM 3.2946 ± 0.0068.
"""

import ml_collections

from pixel_rnn_jax.runs.config import base_config


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the settings for an architecture or for several scales."""
    config = base_config(variant, architecture="diagonal_bilstm", scales=(16, 32))
    layers = 15 if config.model.architecture == "pixel_cnn" else 12
    config.model.update(layers=layers, features=128, head_features=1024)
    config.data.name = "cifar10"
    config.data.update(train_split="train[:45000]", validation_split="train[45000:]")
    config.optimizer.update(name="rmsprop", learning_rate=1e-3, weight_decay=0.0)
    config.train.update(steps=300_000, batch_size=16, eval_batch_size=64)
    config.train.update(log_every=100, eval_every=5000, checkpoint_every=1000)
    return config
