"""The commands `train` and `prepare`."""

import re
import shutil
import textwrap
from argparse import Action, ArgumentParser, Namespace
from pathlib import Path
from typing import Any

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

COMMON = r"""(?x)
    model\.(architecture | layers | features | input | output | scales | num_classes | dropout)
    | data\.(name | data_dir | levels | binarize | flip) | seed | init_from
    | optimizer\.(name | learning_rate | schedule | weight_decay)
    | train\.(steps | batch_size | eval_every | patience)"""
"""The fields that --help shows."""


def train(arguments: Namespace) -> None:
    """Trains a model, or resumes the run that is in its workdir."""
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
    help_ = f"a file or one of {names}, perhaps with a variant: mnist:row_lstm"
    parser.add_argument("--config", help=help_)
    help_ = "folder or gs://BUCKET/FOLDER of the run, new or to resume (default: runs/CONFIG)"
    parser.add_argument("--workdir", type=path, help=help_)
    process_flags(parser)
    config_flags(parser)
    help_ = "show this; with --help=all every field"
    parser.add_argument("-h", "--help", nargs="?", choices=("all",), action=_Help, help=help_)


class _Help(Action):
    """Shows the flags, and the fields as the flags before --help set them."""

    def __call__(self, parser: Any, flags: Any, value: Any, option: Any = None) -> None:
        config = config_lib.load_config(flags.config) if flags.config else config_lib.Config()
        parser.epilog = _fields(config_lib.override(config, overrides(flags)), value == "all")
        parser.print_help()
        parser.exit()


def _fields(config: config_lib.Config, every: bool) -> str:
    """Describes the fields of a config, a line each, or `every` one in full."""
    wrapper = textwrap.TextWrapper(shutil.get_terminal_size().columns, subsequent_indent=37 * " ")
    wrapper.max_lines, wrapper.placeholder = None if every else 1, "…"
    lines = ["--config.FIELD=VALUE sets a field:"]
    for name, value in config_lib.leaves(config):
        if every or re.fullmatch(COMMON, name):
            lines += [""] * (name in ("data.name", "optimizer.name", "train.steps"))
            choices = not every and config_lib.CHOICES.get(name)
            text = ", ".join(choices) if choices else config_lib.describe(name)
            lines += wrapper.wrap(f"  {f'{name}={value}':<34} {text}")
    return "\n".join(lines)


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
