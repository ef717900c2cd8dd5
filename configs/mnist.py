"""MNIST, statically binarised: the paper's 79.20 nats (Diagonal BiLSTM, 7 layers, h=16, table 4).

Command:   pixel-rnn-jax --config=mnist
           pixel-rnn-jax --config=mnist:row_lstm   (or :pixel_cnn, :linear_rnn)
           --config.model.layers=1 --config.model.features=32 makes it the paper's one-layer model,
           for which the paper has 80.75 nats.
           pixel-rnn-jax --config=mnist:multi_scale
           makes it a Multi-Scale PixelRNN with images of height 14 and 28.
Data:      binarized_mnist, the set that the paper's table is on: 50,000 training, 10,000 validation
           and 10,000 test images, downloaded at the first use (docs/data.md).
           Likelihoods on the two sets below are not comparable with those on binarized_mnist:
           --config.data.name=mnist with --config.data.binarize=dynamic draws new binary images
           each time (fixed: one draw an image), and binarize=none keeps all 256 levels. `mnist` has
           no validation part; add --config.data.train_split='train[:50000]' and
           --config.data.validation_split='train[50000:]'.
Hardware:  a CPU with a few cores, or any GPU or TPU.
Settings:  batch size, width and depth are the paper's. It gives no size for the other two
           architectures, which have the same one here. Muon, its rate and schedule, the decay of
           weights, the clipping, the average and the number of steps are this project's own, and
           those of the run below. The paper's optimiser, at its best rate of short runs:
           --config.optimizer.name=rmsprop --config.optimizer.learning_rate=5e-3
           --config.optimizer.weight_decay=0 --config.optimizer.warmup_steps=0
Results:   the table of README.md, each by the command in the card of its bundled model. Several
           scales have not been run with these settings.
"""

import ml_collections

from pixel_rnn_jax.runs.config import base_config


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the settings for an architecture or for several scales."""
    config = base_config(variant, architecture="diagonal_bilstm", scales=(14, 28))
    config.model.update(layers=7, features=16, head_features=32)
    config.data.name = "binarized_mnist"
    config.optimizer.warmup_steps = 300
    config.train.update(steps=20_000, batch_size=16)
    config.train.update(log_every=100, eval_every=5000, checkpoint_every=1000)
    return config
