"""The commands, and how a command line names one of them with its flags."""

from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli import archive, evaluate, generate, train
from pixel_rnn_jax.cli.flags import check_not_read
from pixel_rnn_jax.config import nearest
from pixel_rnn_jax.errors import UserError

Command = Callable[[Namespace], None]
COMMANDS: dict[str, tuple[Command, Callable[[ArgumentParser], None]]] = {
    "train": (train.train, train.train_flags),
    "prepare": (train.prepare, train.prepare_flags),
    "evaluate": (evaluate.evaluate, evaluate.evaluate_flags),
    "sample": (generate.sample, generate.sample_flags),
    "complete": (generate.complete, generate.complete_flags),
    "compress": (archive.compress, archive.compress_flags),
    "decompress": (archive.decompress, archive.decompress_flags),
    "info": (archive.info, archive.info_flags),
    "export": (archive.export, archive.export_flags),
}
"""The function of each command and that of its flags; a line without a command is `train`."""


def parse(argv: Sequence[str]) -> tuple[Command, Namespace]:
    """Returns the function of the command that the words name, and its flags.

    Raises:
        UserError: A flag is unknown, or what is written is also read.
        SystemExit: A command or the value of a flag is wrong, with status 2; or, with status 0,
            after --help or --version.
    """
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "train")
    parser = ArgumentParser(
        prog="pixel-rnn-jax",
        description="Pixel Recurrent Neural Networks: exact-likelihood models of images.",
        epilog="Without a command it is train. COMMAND --help shows the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {prnn.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (function, define_flags) in COMMANDS.items():
        summary = str(function.__doc__).partition("\n")[0]
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            usage="%(prog)s [FLAGS]",
            formatter_class=RawDescriptionHelpFormatter,
            allow_abbrev=False,
            add_help=name != "train",  # Which shows the fields of its config too.
        )
        define_flags(command)
    arguments, unknown = parser.parse_known_args(words)
    if unknown:
        flag = unknown[0].partition("=")[0]
        likely = nearest(flag.lstrip("-"), vars(arguments))
        raise UserError(f"{words[0]} takes no {flag}; did you mean --{likely}?")
    check_not_read(arguments)
    return COMMANDS[words[0]][0], arguments
