"""The program, `python -m pixel_rnn_jax.main [VERB] [FLAGS]`: one command, and how it ends."""

import functools
import sys
from collections.abc import Sequence
from typing import NoReturn

from etils import epy

from pixel_rnn_jax.cli import interrupts
from pixel_rnn_jax.errors import USER_ERROR, what_to_say

# When they are used: `run` has to see a Ctrl-C before, and --help does without JAX.
with epy.lazy_imports():
    from absl import app, flags

    from pixel_rnn_jax import installation, terminal
    from pixel_rnn_jax.cli import parse, start
    from pixel_rnn_jax.runtime import processes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The words after the program's name; None takes those of the process.

    Returns:
        The exit status: 0, 2 after a `UserError` (printed as one line) or if results could not be
        printed, 130 after Ctrl-C.
    """
    arguments = sys.argv[1:] if argv is None else argv
    try:
        # absl calls what `_parse` returns: the verb with its flags.
        app.run(
            lambda command: start.run(command), [parse.PROGRAM, *arguments], flags_parser=_parse
        )
    except (ValueError, MemoryError, RuntimeError, ImportError, OSError) as error:
        if not (text := what_to_say(error) or installation.what_to_say(error)):
            raise
        print(f"error: {text}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return 130
    except SystemExit as ended:  # How absl ends.
        if ended.code:  # After a signal, while a model was trained.
            raise
    lost = "pixel_rnn_jax.terminal" in sys.modules and terminal.lost_lines()
    return USER_ERROR if lost else 0


def _parse(argv: Sequence[str]) -> functools.partial[None]:
    # absl's own flags; a verb has its own. Only warnings of what libraries log are shown.
    flags.FLAGS([argv[0], "--verbosity=-1"])
    command = parse.parse(argv)
    installation.check()  # Before JAX is imported.
    return command


def run() -> NoReturn:
    """Runs `main` as the whole of a process, perhaps one of several that wait for each other."""
    interrupts.leave_at_once()
    error = None
    try:
        status = main()
    except Exception as unexpected:  # An OSError, where the error itself cannot be printed.
        if not _joined():
            raise
        status, error = 1, unexpected
    if status and _joined():
        processes.end(status, error)
    sys.exit(status)


def _joined() -> bool:
    return "jax" in sys.modules and processes.joined()


if __name__ == "__main__":
    run()
