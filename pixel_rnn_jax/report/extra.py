"""The packages of the extra `report`."""

import importlib
from typing import Any

from pixel_rnn_jax.errors import UserError


def library(name: str) -> Any:
    """Returns a module of Jinja2 or Matplotlib.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(
            "a report needs packages that are not installed: pip install 'pixel-rnn-jax[report]'"
        ) from error
