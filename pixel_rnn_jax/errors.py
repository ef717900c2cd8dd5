"""The exception for mistakes of the user."""

import re


class UserError(ValueError):
    """An error that the caller can correct; the message says what is wrong and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


def first_sentence(error: Exception) -> str:
    """Returns the first sentence of another library's error message."""
    return re.split(r"\.(?:\s|$)|\n", str(error))[0]


def out_of_memory(error: BaseException) -> bool:
    """Returns whether an error is that of Python or of JAX without memory left."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


USER_ERROR = 2
"""Exit status after a `UserError`; starting again would only repeat it."""
