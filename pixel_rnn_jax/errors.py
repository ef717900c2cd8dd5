"""The exception for mistakes of the user."""


class UserError(ValueError):
    """An error that the caller can correct; the message says what is wrong and what to do.

    The command line prints the message without a traceback and exits with status 2.
    """
