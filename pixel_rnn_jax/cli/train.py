"""The commands `train`, whose flags are absl's, and `prepare`."""

import functools
import itertools
import re
import shutil
import textwrap
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from etils import epath, epy

from pixel_rnn_jax.cli.evaluate import print_evaluation
from pixel_rnn_jax.cli.flags import PLUGIN, PROCESS_FLAGS
from pixel_rnn_jax.system import files
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.training import config as config_lib

with epy.lazy_imports():
    from pixel_rnn_jax.data import standard
    from pixel_rnn_jax.system import processes, terminal
    from pixel_rnn_jax.training import train as train_lib
    from pixel_rnn_jax.training import workdir as workdir_lib


def train(config: config_lib.Config, workdir: epath.Path, flag_values: flags.FlagValues) -> None:
    """Trains a model, or resumes the run that is in its workdir."""
    v = flag_values
    processes.join(v.coordinator, v.num_processes, v.process_id, v.distributed)
    terminal.log(f"workdir: {workdir}")
    result = train_lib.train(config, workdir)
    assert result.test
    print_evaluation("test", result.run, result.test)
    if result.baseline:
        terminal.print_result(f"independent pixels: {result.baseline}")
    for name in ("result.json", "pictures"):
        terminal.print_result(str(workdir / name))


def parse_train(words: Sequence[str], values: flags.FlagValues) -> Callable[[], None]:
    """Parses the flags of `train`, and returns the training to run.

    --config or --workdir, looked at first, gives the config, whose fields become flags in `values`.
    """
    source = flags.FlagValues()
    source.set_gnu_getopt(True)
    names = ", ".join(config_lib.CONFIGS)
    help_ = f"a file or one of {names}, perhaps with a variant: mnist:row_lstm"
    flags.DEFINE_string("config", None, help_, flag_values=source)
    help_ = "folder or gs://BUCKET/FOLDER of the run, new or to resume (default: runs/CONFIG)"
    flags.DEFINE_string("workdir", None, help_, flag_values=source)
    flags.DEFINE_string("plugin", None, PLUGIN, flag_values=source)
    define: dict[Any, Any] = {
        bool: flags.DEFINE_bool,
        str: flags.DEFINE_string,
        int: flags.DEFINE_integer,
    }
    for flag, (kind, help_) in PROCESS_FLAGS.items():
        define[kind](flag, None, help_, flag_values=source)
    wanted = {"-h", "--help"} & {*words}
    if any(word.startswith("--model=") for word in words):
        raise UserError(
            "train takes no --model: --config.init_from=NAME starts from its parameters"
        )
    _, *fields = source(["", *(word for word in words if word not in wanted)], known_only=True)
    config = config_lib.Config()
    files.check_storage(source.workdir or "runs")
    workdir = epath.Path(source.workdir).expanduser() if source.workdir else None
    if source.config:
        config = config_lib.load_config(source.config)
        name, _, variant = source.config.partition(":")
        folder = Path(name).stem + (f"-{variant}" if variant else "")
        workdir = workdir or epath.Path("runs") / folder
    elif workdir:
        config = workdir_lib.read_config(workdir)
    if source.workdir == "" or not (source.config or workdir or wanted):
        raise UserError("train needs --config=NAME, such as digits, or the --workdir of a run")
    config = config_lib.with_flags(config, fields, values)
    if wanted:
        print(_help(source, config))
        raise SystemExit
    assert workdir
    return functools.partial(train, config, workdir, source)


def _help(values: flags.FlagValues, config: config_lib.Config) -> str:
    """Describes the flags, and shows the fields as the flags beside --help set them."""
    lines = ["Trains a model, or resumes the run that is in its workdir.", ""]
    lines += [f"  --{name:<14} {values[name].help}" for name in values]
    lines += ["", "--config.FIELD=VALUE sets a field, here with its value (see docs/training.md):"]
    wrapper = textwrap.TextWrapper(shutil.get_terminal_size().columns, "  ", "  ")
    wrapper.break_on_hyphens = wrapper.break_long_words = False
    fields = (f"{name}={value}".replace(" ", "") for name, value in config_lib.leaves(config))
    for _, group in itertools.groupby(fields, lambda field: re.split(r"[.=]", field)[0]):
        lines += wrapper.wrap("  ".join(group))
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
