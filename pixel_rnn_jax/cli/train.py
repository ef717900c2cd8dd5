"""The commands `train` and `prepare`."""

import textwrap
from argparse import ArgumentParser, Namespace
from pathlib import Path

from etils import epath, epy

from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli.evaluate import join, print_evaluation
from pixel_rnn_jax.cli.flags import config_flags, overrides, path, process_flags
from pixel_rnn_jax.errors import UserError

with epy.lazy_imports():
    from pixel_rnn_jax import terminal
    from pixel_rnn_jax.data import standard
    from pixel_rnn_jax.runs import workdir as workdir_lib
    from pixel_rnn_jax.training import train as train_lib


def train(arguments: Namespace) -> None:
    """Trains a model, or goes on with the run that is in its workdir."""
    workdir = arguments.workdir
    if arguments.config:
        config = config_lib.load_config(arguments.config)
        name, _, variant = arguments.config.partition(":")
        folder = Path(name).stem + (f"-{variant}" if variant else "")
        workdir = workdir or epath.Path("runs") / folder
    elif workdir:
        config = workdir_lib.read_config(workdir)
    else:
        raise UserError("train needs --config=NAME, such as digits, or the --workdir of a run")
    config = config_lib.override(config, overrides(arguments))
    join(arguments)
    terminal.log(f"workdir: {workdir}")
    result = train_lib.train(config, workdir)
    assert result.test
    print_evaluation("test", config.model, result.test, result.run)
    if result.baseline:
        terminal.print_result(f"independent pixels: {result.baseline}")
    for name in ("result.json", "pictures"):
        terminal.print_result(str(workdir / name))


def train_flags(parser: ArgumentParser) -> None:
    """Defines the flags of `train`."""
    names = ", ".join(config_lib.CONFIGS)
    help_ = f"a config file or one of {names}, perhaps with a variant, as in mnist:row_lstm"
    parser.add_argument("--config", help=help_)
    help_ = (
        "folder or gs://BUCKET/FOLDER of the run; one that exists goes on (default: runs/CONFIG)"
    )
    parser.add_argument("--workdir", type=path, help=help_)
    process_flags(parser)
    config_flags(parser)
    fields = [f"{name}={value}" for name, value in config_lib.leaves(config_lib.Config())]
    parser.epilog = (
        "--config.FIELD=VALUE overrides a field of the config, see `python -m pydoc\n"
        "pixel_rnn_jax.ModelConfig` (DataConfig, OptimizerConfig, TrainConfig). Defaults:\n"
        + textwrap.fill(" ".join(fields), 80, break_long_words=False, break_on_hyphens=False)
    )


def prepare(arguments: Namespace) -> None:
    """Downloads MNIST, CIFAR-10 or ImageNet, or converts its archives, and checks the images."""
    if arguments.name not in standard.SETS:
        raise UserError(f"NAME must be one of {', '.join(standard.SETS)}, got {arguments.name!r}")
    fingerprints = standard.prepare(arguments.name, arguments.source)
    terminal.print_result(str(standard.folder_of(arguments.name)))
    for split, (count, bits, sha256) in fingerprints.items():
        terminal.print_result(f"{split}: {count:,} images, {bits:.4f} bits/dim, SHA-256 {sha256}")


def prepare_flags(parser: ArgumentParser) -> None:
    """Defines the flags of `prepare`."""
    help_ = "binarized_mnist, mnist, cifar10, downsampled_imagenet/32x32, or another: docs/data.md"
    parser.add_argument("name", metavar="NAME", help=help_)
    help_ = "archives that are there already, or the address of their folder (default: their site)"
    parser.add_argument("--from", dest="source", metavar="FILE|FOLDER|URL", default="", help=help_)
