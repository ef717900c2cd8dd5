"""The one exception of this package that is meant for its user."""


class UserError(ValueError):
    """Something that the caller can put right; the message says what is wrong and what to do.

    The command line prints it as one sentence without a traceback and exits with status 2.
    """
