"""The program: `pixel-rnn-jax [COMMAND] [FLAGS]`, or `python -m pixel_rnn_jax.main`."""

import os
import sys
from collections.abc import Callable, Sequence

from absl import app, flags, logging
from etils import epy

from pixel_rnn_jax.cli import parse
from pixel_rnn_jax.system.errors import USER_ERROR, UserError, is_transient

with epy.lazy_imports():  # They import JAX, which --help does without.
    import jax

    from pixel_rnn_jax.system import devices, processes


def main(command: Callable[[], None]) -> int:
    """Runs a command and returns the exit status.

    It is 2 after a mistake, 1 after an error that may pass, 130 after Ctrl-C, 141 where the reader
    of its output ends, else 0.
    """
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


def parse_flags(argv: Sequence[str]) -> Callable[[], None]:
    """Returns the command of a command line; a mistake ends the process with status 2."""
    flags.FLAGS(argv[:1])  # absl's own flags, which no command has.
    try:
        return parse.parse(parse.run_plugins(argv[1:]))
    except (UserError, OSError, flags.Error) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(USER_ERROR) from error


def run() -> None:
    """Runs the program as the whole of a process."""
    app.run(main, flags_parser=parse_flags)


if __name__ == "__main__":
    run()
