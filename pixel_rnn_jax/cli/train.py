"""The verb `train`."""

from etils import epath

from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli.evaluate import join, show_evaluation
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.runtime import compilation
from pixel_rnn_jax.terminal import say, show
from pixel_rnn_jax.training import train as train_lib

WORSE = (
    "the model is worse than independent pixels: train for longer, try another "
    "optimizer.learning_rate, or model.input=categorical for values whose order means nothing"
)


def train(values: Flags) -> None:
    """Trains a model, or goes on with the run that is in its workdir."""
    config = config_lib.from_config_dict(values.config)
    join(values)
    say(f"workdir: {values.workdir}")
    if programs := compilation.programs_folder():
        say(f"compiled programs: {programs} (--compilation_cache)")
    allowed = [name.strip() for name in values.allow_change.split(",") if name.strip()]
    result = train_lib.train(config, values.workdir, allow_change=allowed)
    show_evaluation("test", result.test)
    kind = "Gaussians" if result.baseline.real else "histograms"
    say(
        f"independent pixels: {result.baseline}; {kind} of {result.baseline.counted:,} "
        "training images"
    )
    if result.test.nats > result.baseline.nats:
        say(WORSE)
    show(f"{epath.Path(values.workdir) / 'result.json'}: these results, for programs")
    for path in result.pictures:
        show(f"{path}: {path.name.partition('-')[0]}")
