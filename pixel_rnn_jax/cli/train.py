"""The commands `train`, whose fields of the config are flags too, and `prepare`."""

import functools
import shutil
import textwrap
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path

from etils import epath, epy

from pixel_rnn_jax.cli import flags
from pixel_rnn_jax.runs import config as config_lib
from pixel_rnn_jax.system.errors import UserError

with epy.lazy_imports():
    from pixel_rnn_jax.data import standard
    from pixel_rnn_jax.runs import workdir as workdir_lib
    from pixel_rnn_jax.system import processes, terminal
    from pixel_rnn_jax.training import train as train_lib


def train(config: config_lib.Config, workdir: epath.Path, arguments: Namespace) -> None:
    """Trains a model, or resumes the run that is in its workdir."""
    processes.join(arguments)
    terminal.log(f"workdir: {workdir}")
    result = train_lib.train(config, workdir)
    terminal.print_result(result.test.report("test", result.run.step))
    if result.baseline:
        terminal.print_result(f"independent pixels: {result.baseline}")
    for name in ("result.json", "pictures"):
        terminal.print_result(str(workdir / name))


def parse_train(words: Sequence[str]) -> Callable[[], None]:
    """Returns the training to run; --config or --workdir gives the config and so its flags."""
    parser = ArgumentParser(
        prog="pixel-rnn-jax train",
        usage="%(prog)s --config=NAME [FLAGS]",
        description=train.__doc__,
        formatter_class=RawDescriptionHelpFormatter,
        add_help=False,
        allow_abbrev=False,
    )
    names = ", ".join(config_lib.CONFIGS)
    help_ = f"a file or one of {names}, perhaps with a variant: mnist:row_lstm"
    parser.add_argument("--config", metavar="NAME", help=help_)
    help_ = "folder or gs://BUCKET/FOLDER of the run, new or to resume (default: runs/CONFIG)"
    parser.add_argument("--workdir", type=flags.path, help=help_)
    flags.plugin_flag(parser)
    flags.process_flags(parser)
    parser.add_argument("-h", "--help", action="store_true", help="flags and fields")
    arguments, fields = parser.parse_known_args(words)
    config, workdir = config_lib.Config(), arguments.workdir
    if arguments.config:
        config = config_lib.load_config(arguments.config)
        name, _, variant = arguments.config.partition(":")
        folder = Path(name).stem + (f"-{variant}" if variant else "")
        workdir = workdir or epath.Path("runs") / folder
    elif workdir:
        config = workdir_lib.read_config(workdir)
    elif not arguments.help:
        parser.error("train needs --config=NAME, such as digits, or the --workdir of a run")
    config = config_lib.with_flags(config, fields)
    if arguments.help:
        parser.epilog = _described(config)
        parser.print_help()
        parser.exit()
    return functools.partial(train, config, workdir, arguments)


def _described(config: config_lib.Config) -> str:
    lines = ["--config.FIELD=VALUE sets a field, here with its value:"]
    wrapper = textwrap.TextWrapper(shutil.get_terminal_size().columns, "  ", "      ")
    wrapper.break_on_hyphens = wrapper.break_long_words = False
    meanings = config_lib.meanings()
    for name, value in config_lib.leaves(config):
        field = f"{name}={value}".replace(" ", "")
        lines += wrapper.wrap(f"{field}  {meanings[name]}")
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
    help_ = "binarized_mnist, mnist, cifar10, downsampled_imagenet/32x32, or another: docs/data.md"
    parser.add_argument("name", metavar="NAME", help=help_)
    help_ = "archives that are there already, or the address of their folder (default: their site)"
    parser.add_argument("--from", dest="source", metavar="FILE|FOLDER|URL", default="", help=help_)
