"""ImageNet at 32x32: the paper's 3.86 bits/dim on the validation split (Row LSTM, table 6).

Command:   pixel-rnn-jax --config=imagenet32
           pixel-rnn-jax --config=imagenet32:diagonal_bilstm
           (or :pixel_cnn)
           pixel-rnn-jax --config=imagenet32:multi_scale
           makes it a Multi-Scale PixelRNN with images of height 8, 16 and 32.
Data:      downsampled_imagenet/32x32, the paper's: 1,281,149 training and 49,999 validation
           images. Its site no longer offers it: get its archives elsewhere (docs/data.md), then
               pixel-rnn-jax prepare downsampled_imagenet/32x32 --from=FOLDER
           It is not imagenet_resized/32x32, 1,281,167 and 50,000 images that were made small in
           another way: --config.data.name=imagenet_resized/32x32 trains on those, and likelihoods
           on them do not compare with the paper's. There is no test part: like the paper, the
           likelihood that is reported at the end is that of the validation split. The best
           checkpoint is chosen on a hundredth of the training images, which are held out for it.
Hardware:  a large GPU or TPU, or several. --config.model.remat=true makes it fit one of 16 GB
           (docs/scaling.md, Memory); --config.train.micro_batches=4 makes the Row LSTM smaller
           still. On a CPU make the model itself smaller:
           --config.model.layers=2 --config.model.features=32 --config.train.steps=2000
Settings:  12 layers, h=384, head, batch size and RMSProp are the paper's. It reports the Row LSTM
           alone and gives no learning rate; the other two architectures have the same size here,
           and the rate, its schedule, the clipping, the average and the number of steps (20
           epochs) are this project's own.
Results:   not yet run.
"""

import ml_collections

from pixel_rnn_jax.training.config import base_config


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
