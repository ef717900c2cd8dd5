"""The commands, and how a command line names one of them with its flags."""

import difflib
from argparse import Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterable, Sequence

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli import archive, evaluate, generate, train
from pixel_rnn_jax.cli.flags import Parser, check_not_read
from pixel_rnn_jax.errors import UserError

Command = Callable[[Namespace], None]
COMMANDS: dict[str, tuple[Command, Callable[[Parser], None]]] = {
    "train": (train.train, train.train_flags),
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
        UserError: A command or flag is unknown (the message suggests a similar one), a value has
            the wrong type or cannot be written, or what is written is also read.
        SystemExit: After --help or --version, with status 0.
    """
    words = list(argv)
    if not words or (words[0].startswith("-") and words[0] not in ("-h", "--help", "--version")):
        words.insert(0, "train")
    parser = Parser(
        prog="pixel-rnn-jax",
        description="Pixel Recurrent Neural Networks: exact-likelihood models of images.",
        epilog="Without a command it is train. COMMAND --help shows the flags of a command.",
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {prnn.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, (function, define_flags) in COMMANDS.items():
        summary, raw = str(function.__doc__).partition("\n")[0], RawDescriptionHelpFormatter
        command = commands.add_parser(
            name, help=summary, description=summary, usage="%(prog)s [FLAGS]", formatter_class=raw
        )
        define_flags(command)
    if not words[0].startswith("-"):
        _check_known("command", words[0], COMMANDS)
        flags = commands.choices[words[0]]._option_string_actions
        for word in words[1:]:  # Before argparse speaks of flags that are missing.
            if word.startswith("--"):
                _check_known("flag", word.partition("=")[0], flags)
    arguments = parser.parse_args(words)
    check_not_read(arguments)
    return COMMANDS[words[0]][0], arguments


def _check_known(kind: str, word: str, words: Iterable[str]) -> None:
    if word not in words:
        (nearest,) = difflib.get_close_matches(word, words, n=1, cutoff=0.0)
        raise UserError(f"there is no {kind} {word}; did you mean {nearest}?")
