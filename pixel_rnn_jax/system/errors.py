"""Mistakes of the user, and exit statuses."""

import errno


class UserError(ValueError):
    """An error that the caller can correct; the message says what is wrong and what to do.

    The command line prints the message without a traceback and exits with status 2.

    >>> prnn.ModelConfig(features=0)
    Traceback (most recent call last):
    pixel_rnn_jax.system.errors.UserError: model.features must be greater than 0, got 0
    """


def is_transient(error: Exception) -> bool:
    """Whether an error is of a connection, a device or the like, and no mistake of the user."""
    # By their classes too: a bucket's errors have no number.
    if isinstance(error, (UserError, FileNotFoundError, FileExistsError, PermissionError)):
        return False
    names = "ENOTDIR EISDIR ENOSPC EDQUOT EFBIG EROFS ELOOP ENAMETOOLONG"
    return errno.errorcode.get(getattr(error, "errno", None) or 0) not in names.split()


USER_ERROR = 2
"""Exit status after a `UserError`; starting again would only repeat it."""
PEER_LOST = 3
"""Exit status of a process that has lost another one; starting all of them again may help."""
