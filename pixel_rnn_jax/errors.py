"""The exception for mistakes of the user."""

import errno
import os
import re


class UserError(ValueError):
    """An error that the caller can correct; the message says what is wrong and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """


_OF_PATHS = errno.ENAMETOOLONG, errno.EACCES, errno.ELOOP


def first_sentence(error: Exception) -> str:
    """Returns the first sentence of another library's error message."""
    return re.split(r"\.(?:\s|$)|\n", str(error))[0]


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that there is not enough memory, of the host or of a device."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def what_to_say(error: Exception) -> str:
    """Returns a sentence about an error that the user can correct; "" about any other."""
    if is_out_of_memory(error):
        less = "ask for fewer images or particles, or a smaller batch"
        return f"out of memory: {less} ({first_sentence(error)})"
    if isinstance(error, OSError) and error.errno in _OF_PATHS and error.filename:
        return f"{str(error.filename)[:100]!r} cannot be used: {error.strerror}"
    if str(error).startswith("Unable to initialize backend"):  # JAX's words.
        return no_device(error)
    return str(error) if isinstance(error, UserError) else ""


def no_device(error: Exception) -> str:
    """Returns what to say where JAX cannot use the devices that it looks for, from its error."""
    why = f" ({first_sentence(error)})" if str(error) else ""
    named = os.environ.get("JAX_PLATFORMS")
    if not named:
        return (
            "JAX is installed for devices that it cannot use here: put JAX_PLATFORMS=cpu in the "
            "environment to go on without them, or bring their driver up to date" + why
        )
    return (
        f"JAX has no device of JAX_PLATFORMS={named}: unset it, or install JAX for such a device, "
        'for a GPU pip install "jax[cuda13]"' + why
    )


USER_ERROR = 2
"""Exit status after a `UserError`; starting again would only repeat it."""
LOST = 3
"""Exit status of a process that has lost another one; starting all of them again may help."""
