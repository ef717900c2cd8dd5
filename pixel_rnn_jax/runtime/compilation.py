"""JAX's persistent compilation cache: a second start of the same program compiles nothing."""

import contextlib
import hashlib
import os
import platform
from pathlib import Path

import jax

from pixel_rnn_jax.errors import UserError


def keep_programs(folder: str | None) -> None:
    """Keeps compiled programs in a folder; "" keeps none.

    With None they are kept as JAX_COMPILATION_CACHE_DIR and JAX's other variables say, or else in
    the user's cache folder, if it can be written to. There each kind of processor has a folder of
    its own, since home folders travel and machine code does not.

    Raises:
        UserError: The folder cannot be made.
    """
    if folder is None:
        if jax.config.jax_compilation_cache_dir is not None:
            return
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = str(caches / "pixel-rnn-jax" / _processor())
        with contextlib.suppress(OSError):
            Path(folder).mkdir(parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK):
            return
    elif folder and "://" not in folder:
        try:
            Path(folder).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"--compilation_cache={folder} cannot be a folder: {error.strerror or error}"
            ) from error
    jax.config.update("jax_compilation_cache_dir", folder or None)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def programs_folder() -> str | None:
    """Returns the folder in which compiled programs are kept, or None."""
    return jax.config.jax_compilation_cache_dir


def _processor() -> str:
    """Returns a name for what the processor can do."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):  # Not Linux.
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:8]}"
