"""Mistakes of the user, and exit statuses."""


class UserError(ValueError):
    """An error that the caller can correct; the message says what is wrong and what to do.

    The command line prints the message without a traceback and exits with status 2.

    >>> prnn.ModelConfig(layers=0)
    Traceback (most recent call last):
    pixel_rnn_jax.errors.UserError: model.layers must be greater than 0, got 0
    """


USER_ERROR = 2
"""Exit status after a `UserError`; starting again would only repeat it."""
LOST = 3
"""Exit status of a process that has lost another one; starting all of them again may help."""
