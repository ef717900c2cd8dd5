"""The commands, and how a command line names one of them with its flags."""

import functools
import runpy
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli import flags, models, train
from pixel_rnn_jax.system.errors import UserError

COMMANDS: dict[str, tuple[Callable[[Namespace], None], Callable[[ArgumentParser], None]]] = {
    "prepare": (train.prepare, train.prepare_flags),
    "evaluate": (models.evaluate, models.evaluate_flags),
    "sample": (models.sample, models.sample_flags),
    "complete": (models.complete, models.complete_flags),
    "compress": (models.compress, models.compress_flags),
    "decompress": (models.decompress, models.decompress_flags),
    "info": (models.info, models.info_flags),
    "export": (models.export, models.export_flags),
}
"""For each command its function, and the one that defines its flags; without one it is `train`."""


def run_plugins(words: Sequence[str]) -> list[str]:
    """Runs the Python files that --plugin names, and returns the other words."""
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    flags.plugin_flag(parser)
    plugins, others = parser.parse_known_args(words)
    for plugin in plugins.plugin:
        if not Path(plugin).is_file():
            raise UserError(f"--plugin={plugin} is no file")
        runpy.run_path(plugin)
    return others


# Three parsers share a command line: plugins may define values of other flags, and the fields of a
# config are flags of absl, which are known when --config has been read.
def parse(words: Sequence[str]) -> Callable[[], None]:
    """Returns the command that the words name."""
    name = words[0] if words else "train"
    if name == "train":
        return train.parse_train(words[1:])
    if name.startswith("-") and name not in ("-h", "--help", "--version"):
        return train.parse_train(words)
    parser = ArgumentParser(
        prog="pixel-rnn-jax",
        description="Pixel Recurrent Neural Networks: exact-likelihood models of images.",
        epilog="Without a command it is train. COMMAND --help shows the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {prnn.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    commands.add_parser("train", help=str(train.train.__doc__))
    for command, (function, define_flags) in COMMANDS.items():
        summary = str(function.__doc__).partition("\n")[0]
        subparser = commands.add_parser(
            command,
            help=summary,
            description=summary,
            usage="%(prog)s [FLAGS]",
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        define_flags(subparser)
        flags.plugin_flag(subparser)
    arguments = parser.parse_args(words)
    return functools.partial(COMMANDS[name][0], arguments)
