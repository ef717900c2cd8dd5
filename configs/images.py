"""A folder of pictures of your own, all of one size.

Command:   pixel-rnn-jax --config=images
           trains on the pictures in the folder `images`; --config.data.name=FOLDER names another.
           pixel-rnn-jax --config=images:row_lstm   (or :pixel_cnn)
           pixel-rnn-jax --config=images:multi_scale
           makes it a Multi-Scale PixelRNN with images of height 16 and 32; for another height give
           --config.model.scales=16,32,64
Data:      a folder of image files or an .npz file (docs/data.md, "Your own files"); size, channels
           and levels are those that are found, 256 levels of 8 bits. A tenth validates and a tenth
           tests. --config.data.flip=true doubles photographs, not texts or digits.
Hardware:  two CPU cores are enough for 32x32.
Settings:  the width h=32 fits some 1,000 to 10,000 pictures. Of fewer take
           --config.model.features=16 and --config.model.dropout=0.3, of more 64 or 128. The rate is
           constant, and training ends after 5 validations without a better one, which is often
           long before the time that the log says is left. For images of 2 to 20 levels, or with
           large areas of one level, --config.model.output=softmax is better.
Results:   not yet run on a published set.
"""

import ml_collections

from pixel_rnn_jax.runs.config import base_config


def get_config(variant: str = "") -> ml_collections.ConfigDict:
    """Returns the settings for an architecture or for several scales."""
    config = base_config(variant, architecture="diagonal_bilstm", scales=(16, 32))
    config.model.update(layers=3, features=32, head_features=64, dropout=0.1)
    config.model.output = "discretized_logistic_mixture"
    config.data.name = "images"
    config.optimizer.update(learning_rate=3e-3, schedule="constant", warmup_steps=100)
    config.train.update(steps=10_000, eval_every=250, patience=5)
    return config
