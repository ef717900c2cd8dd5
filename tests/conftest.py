"""What every test runs under: eight CPU devices, and no silent promotion of ranks."""

import gc
import os
from collections.abc import Iterator

import jax
import pytest

# On a machine with an accelerator too, unless the caller says otherwise.
jax.config.update("jax_platforms", os.environ.get("JAX_PLATFORMS") or "cpu")
jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# The tests trace and compile more than they compute. Each of these takes a tenth of the time.
jax.config.update("jax_traceback_in_locations_limit", 0)
gc.set_threshold(50_000, 20, 50)

# Devices that outnumber the cores must not wait for each other's threads (`set_up_host_devices`
# makes no more devices than there are cores). JAX reads both variables when its backend starts;
# then they go again, so that programs which tests start do not inherit them.
with pytest.MonkeyPatch.context() as patch:
    patch.setenv("NPROC", "16")
    flags = "--xla_cpu_multi_thread_eigen=false --xla_backend_optimization_level=0"
    patch.setenv("XLA_FLAGS", f"{flags} --xla_cpu_parallel_codegen_split_count=1")
    jax.devices()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the benchmarks first, then the last files by path: the long ones are among them."""
    items.sort(key=lambda item: ("benchmarks" in item.path.parts, item.path), reverse=True)


@pytest.fixture
def x64() -> Iterator[None]:
    """Computes in float64 within one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session", autouse=True)
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Leaves the user's cache folder alone."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("caches")))
        yield


@pytest.fixture(scope="session")
def compilation_cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment variables with which the programs of all tests compile everything once."""
    return {
        "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled")),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
