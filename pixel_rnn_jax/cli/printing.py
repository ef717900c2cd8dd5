"""What is printed before any work: help, the version, and scripts of completion."""

import sys

from pixel_rnn_jax import outputs
from pixel_rnn_jax.errors import UserError


def put(text: str) -> None:
    """Prints a text.

    Raises:
        UserError: It cannot be printed, as after `| head` or on a full disk.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        outputs.abandon(sys.stdout)
        raise UserError(f"nothing can be printed ({error.strerror or error})") from error
