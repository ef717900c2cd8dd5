"""The old names of `devices.keep_programs`, until cli/ is merged."""

import jax

from pixel_rnn_jax.runtime import devices


def keep_programs(folder: str | None) -> None:
    """Keeps compiled programs."""
    if folder is None:
        devices.keep_programs()
    else:
        jax.config.update("jax_compilation_cache_dir", folder or None)


def programs_folder() -> str | None:
    """Returns the folder."""
    return jax.config.jax_compilation_cache_dir
