"""What every test runs under: eight CPU devices, no silent rank promotion."""

import os
from collections.abc import Iterator

import jax
import pytest

# On a machine with an accelerator too, unless the caller says otherwise.
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS", "cpu"))
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")

# The CPU client's pool of threads must be larger than its number of devices, or an all-reduce can
# wait for itself for ever; it takes its size from NPROC when it starts. The variable goes again, so
# that what a test starts as a process of its own is on its own in this.
os.environ["NPROC"] = "16"
jax.devices()
del os.environ["NPROC"]


@pytest.fixture
def x64() -> Iterator[None]:
    """Computes in float64 within one test."""
    with jax.enable_x64(True):
        yield
