"""The program: `pixel-rnn-jax [COMMAND] [FLAGS]`, or `python -m pixel_rnn_jax.main`."""

import functools
import os
import runpy
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from pathlib import Path

from absl import app, logging
from absl import flags as absl_flags
from etils import epy

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli import flags, models, train
from pixel_rnn_jax.system.errors import USER_ERROR, UserError, is_transient

with epy.lazy_imports():  # They import JAX, which --help does without.
    import jax

    from pixel_rnn_jax.system import devices, processes

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


def main(command: Callable[[], None]) -> int:
    """Runs a command and returns the exit status, which docs/clusters.md lists."""
    logging.set_verbosity(logging.ERROR)  # Orbax warns of each option that it sets itself.
    try:
        devices.set_up()
        command()
    except BrokenPipeError:  # As in `info x.prnn | head`; Python would write to it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _end(141)
    except (UserError, OSError) as error:
        missing = isinstance(error, FileNotFoundError) and getattr(error, "filename", None)
        print(f"error: {f'{missing}: no such file' if missing else error}", file=sys.stderr)
        return _end(1 if is_transient(error) else USER_ERROR)
    except (MemoryError, OverflowError) as error:
        print(f"error: a number or a size is too large: {error!r}", file=sys.stderr)
        return _end(USER_ERROR)
    except KeyboardInterrupt:
        return _end(130)
    except Exception as error:
        _end(1, error)
        raise
    return 0


def _end(status: int, error: Exception | None = None) -> int:
    """Hard-exits a process of a multi-process run; a normal exit would block on the others."""
    if jax.distributed.is_initialized():
        processes.end(status, error)
    return status


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


# Three parsers read a command line: a plugin may register what the other flags name, argparse knows
# the flags of a command, and absl the fields of a config, once --config has been read.
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


def parse_flags(argv: Sequence[str]) -> Callable[[], None]:
    """Returns the command of a command line; a mistake ends the process with status 2."""
    absl_flags.FLAGS(argv[:1])  # absl's own flags, which no command has.
    try:
        return parse(run_plugins(argv[1:]))
    except (UserError, OSError, absl_flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error


def run() -> None:
    """Runs the program as the whole of a process."""
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
