"""What Orbax prints and logs, which the errors that it raises say as well."""

import functools
import logging
import re

import absl.logging
from etils import epath

from pixel_rnn_jax.runtime import storage


@functools.cache
def silence() -> None:
    """Switches off Orbax's messages in this process."""
    absl.logging.get_absl_logger().addFilter(
        lambda record: "orbax" not in epath.Path(record.pathname).parts
    )
    # Arrays that fail after the first one are told by asyncio; after its end, by Python's hook.
    with_traceback = logging.Formatter()
    logging.getLogger("asyncio").addFilter(
        lambda record: not re.search("orbax|tensorstore", with_traceback.format(record))
    )
    storage.silence_unraisable(lambda error: str(error) == "Event loop is closed")
