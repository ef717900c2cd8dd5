"""The program: `pixel-rnn-jax [COMMAND] [FLAGS]`, or `python -m pixel_rnn_jax.main`."""

import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import logging
from etils import epy

from pixel_rnn_jax.cli import parse
from pixel_rnn_jax.errors import USER_ERROR, UserError

with epy.lazy_imports():  # They import JAX, which --help does without.
    import jax

    from pixel_rnn_jax.runtime import devices, processes


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status: 2 after a mistake, 130 after Ctrl-C, else 0."""
    try:
        command, arguments = parse.parse(sys.argv[1:] if argv is None else argv)
        devices.set_up_host_devices()
        devices.keep_programs()
        command(arguments)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


def run() -> NoReturn:
    """Runs `main` as the whole of a process, perhaps one of several that wait for each other."""
    logging.set_verbosity(logging.ERROR)  # Orbax warns of each option that it sets itself.
    status, error = 1, None
    try:
        status = main()
    except Exception as unexpected:
        error = unexpected
    if status and "jax" in sys.modules and jax.distributed.is_initialized():
        processes.end(status, error)  # A normal exit would wait for the others.
    if error is not None:
        raise error
    sys.exit(status)


if __name__ == "__main__":
    run()
