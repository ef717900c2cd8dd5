"""The verb `train`."""

from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli.evaluate import say_evaluation
from pixel_rnn_jax.cli.flags import Flags, join
from pixel_rnn_jax.terminal import say
from pixel_rnn_jax.training import train as train_lib


def train(values: Flags) -> None:
    """Trains a model, or goes on with the run that is in its workdir."""
    config = config_lib.from_config_dict(values.config)
    join(values)
    say(f"workdir: {values.workdir}")
    result = train_lib.train(config, values.workdir)
    say_evaluation("test", result.test)
    say(
        f"independent pixels: {result.baseline}; histograms of {result.baseline.counted:,} "
        "training images"
    )
    for path in result.pictures:
        say(f"{path.name.partition('-')[0]}: {path}")
