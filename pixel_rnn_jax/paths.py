"""Paths as people write them: `~` is a home folder, and what can be no path is refused."""

import os
from typing import Any

from pixel_rnn_jax.errors import UserError


def expanded(path: Any, what: str = "path") -> str:
    """Returns a path as a string, in which a `~` at its beginning has become the home folder.

    Args:
        path: A string or a `PathLike`.
        what: Its name in error messages.

    Raises:
        UserError: It is of another type, has a NUL, or begins with the name of an unknown user.
    """
    try:
        text = os.fspath(path)
    except TypeError as error:
        raise UserError(f"{what} must be a path, got {path!r}") from error
    if isinstance(text, bytes):
        text = os.fsdecode(text)
    if "\0" in text:
        raise UserError(f"{what} must be a path, got {text!r}, which has a NUL character")
    found = os.path.expanduser(text)
    if found.startswith("~"):
        user = found.partition("/")[0]
        raise UserError(
            f"{what} {text!r}: there is no user {user[1:]!r}; write ./{found} for a path of that "
            "name"
        )
    return found
