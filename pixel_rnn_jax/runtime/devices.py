"""Device meshes with one axis, `data`, over which batches are split."""

import contextlib
import ctypes
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pixel_rnn_jax.errors import UserError, no_device

PyTree = Any
AXIS = "data"


def set_up_host_devices() -> None:
    """Makes every CPU core a JAX device, unless the environment sets the number of devices.

    Call it before JAX starts a backend. It also switches off Eigen's thread pool, with which XLA's
    CPU client deadlocks: one device waits in an all-reduce, on a thread that the convolution of
    another device needs.

    Raises:
        RuntimeError: JAX has started a backend already; nothing is changed then.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "host_platform_device_count" not in flags:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores or 1)
    _keep_freed_memory()
    if "--xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()


def _keep_freed_memory() -> None:
    """Makes glibc keep what a step frees: mapping it again takes a third of a small step's time."""
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
    with contextlib.suppress(OSError, AttributeError):  # Another C library.
        mallopt = ctypes.CDLL(None).mallopt
        # One arena for the main thread, which compiles, and one for the devices. In a single one,
        # what compiling leaves behind makes each search for memory slow; with more, large maps
        # are mapped anew in each step.
        mallopt(m_arena_max, 2)
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 64 * 2**20)


def make_mesh(devices: int | None = None) -> Mesh:
    """Returns a mesh of all devices, or of the first `devices` of each process.

    The devices of one process are neighbours in it, as the rows of one process are in a batch;
    `jax.make_mesh` may order them otherwise.

    Raises:
        UserError: The processes have different numbers of devices, or none of the kind that the
            environment asks for.
    """
    _start()
    by_process = [
        sorted(jax.local_devices(process), key=lambda device: device.id)
        for process in range(jax.process_count())
    ]
    counts = sorted({len(local) for local in by_process})
    if len(counts) > 1:
        raise UserError(f"all processes must have the same number of devices, they have {counts}")
    return _mesh([device for local in by_process for device in local[:devices]])


def local_mesh(devices: int) -> Mesh:
    """Returns a mesh of the first `devices` of this process.

    Raises:
        UserError: There is none of the kind that the environment asks for.
    """
    _start()
    return _mesh(jax.local_devices()[:devices])


def _start() -> None:
    """Starts JAX's backend, or says what is wrong with the devices that the environment names."""
    try:
        jax.local_devices()
    except (RuntimeError, AssertionError) as error:  # How JAX ends without a backend.
        raise UserError(no_device(error)) from error


def _mesh(devices: list[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def mesh_for(batch_size: int) -> Mesh:
    """Returns the largest mesh, with equally many devices of each process, that divides a batch.

    Raises:
        UserError: The batch size is not a multiple of the number of processes.
    """
    rows, rest = divmod(batch_size, jax.process_count())
    if rest:
        raise UserError(
            "train.batch_size / train.micro_batches must be a multiple of the number of "
            f"processes, got {batch_size} for {jax.process_count()} processes"
        )
    most = min(rows, jax.local_device_count())
    return make_mesh(max(n for n in range(1, most + 1) if rows % n == 0))


def hardware(used: int) -> dict[str, str | int]:
    """Returns what a run is computed on, `used` devices of those of the processes."""
    device = jax.devices()[0]
    name = _processor_name() if device.platform == "cpu" else device.device_kind
    return {
        "platform": device.platform,
        "device": name,
        "devices": used,
        "processes": jax.process_count(),
    }


def _processor_name() -> str:
    try:
        found = re.search(r"^model name\s*: (.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:  # Not Linux.
        found = None
    return found[1] if found else platform.processor() or platform.machine()


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device of the mesh holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Splits a batch over the devices along its first axis; each process gives its own rows."""
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def local_rows(array: jax.Array) -> np.ndarray:
    """Returns the rows of a split array that are on the devices of this process."""
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def map_batch(
    function: Callable[[PyTree, PyTree], PyTree], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    """Compiles a function of (parameters, batch) that returns one result per image.

    Each device holds all parameters and computes its rows of the batch.
    """
    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(whole, split), out_specs=split)
    return jax.jit(mapped)
