"""Data parallelism: one mesh axis, `data`, over which batches are split and gradients averaged."""

import contextlib
import ctypes
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pixel_rnn_jax.errors import UserError

PyTree = Any
AXIS = "data"

# `check_vma=False` below: a scan's carry starts from replicated parameters and is then different on
# each device, which the check takes for a mistake.


def set_up_host_devices() -> None:
    """Makes every core of a CPU a device of its own, unless the environment gives a number.

    To be called before JAX starts a backend. Work on one core needs no threads beneath it, and
    Eigen must not have them: XLA's CPU client deadlocks when one device waits in an all-reduce on a
    thread that another device's convolution is waiting for. (Large matmuls, which newer XLA leaves
    to YNNPACK, may still use every core; it does not wait for that pool.)
    """
    _keep_freed_memory()
    flags = os.environ.get("XLA_FLAGS", "")
    if "--xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "host_platform_device_count" not in flags:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        jax.config.update("jax_num_cpu_devices", cores or 1)


def _keep_freed_memory() -> None:
    """Lets glibc keep what a step has freed for the next one.

    Given back to the system, as it is by default, the memory of every step is mapped and zeroed
    again page by page, which takes as long as a third of a small model's step.
    """
    m_trim_threshold, m_top_pad, m_mmap_max, m_arena_max = -1, -2, -4, -8
    with contextlib.suppress(OSError, AttributeError):  # Another C library.
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(m_arena_max, 1)
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)
        mallopt(m_top_pad, 64 * 2**20)


def make_mesh(devices: int | None = None) -> Mesh:
    """Returns a mesh of all devices, or of the first so many of each process.

    Those of a process are neighbours, as its rows of a batch are (`jax.make_mesh` may order them by
    their places on the board instead, which an all-reduce over all of them has no use for).

    Raises:
        UserError: The processes have different numbers of devices.
    """
    used: dict[int, list[jax.Device]] = {}
    for device in sorted(jax.devices(), key=lambda device: (device.process_index, device.id)):
        used.setdefault(device.process_index, []).append(device)
    counts = sorted({len(own) for own in used.values()})
    if len(counts) > 1:
        raise UserError(
            f"every process must have as many devices as the others, they have {counts}"
        )
    return _mesh([device for own in used.values() for device in own[:devices]])


def own_mesh(devices: int) -> Mesh:
    """Returns a mesh of the first so many devices of this process, whatever others do."""
    return _mesh(jax.local_devices()[:devices])


def _mesh(devices: list[jax.Device]) -> Mesh:
    return Mesh(np.array(devices), (AXIS,), axis_types=(AxisType.Auto,))


def mesh_for(batch_size: int) -> Mesh:
    """Returns a mesh of as many devices, equally many of each process, as can share a batch.

    Raises:
        UserError: The number of processes does not divide the batch.
    """
    rows, rest = divmod(batch_size, jax.process_count())
    if rest:
        raise UserError(
            "train.batch_size / train.micro_batches must be a multiple of the number of "
            f"processes, got {batch_size} for {jax.process_count()} processes"
        )
    most = min(rows, jax.local_device_count())
    return make_mesh(max(n for n in range(1, most + 1) if rows % n == 0))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def replicated_shapes(function: Callable[[], PyTree], mesh: Mesh) -> PyTree:
    """Returns what `function` would return, whole on every device, as shapes and types alone."""
    sharding = replicated(mesh)
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        jax.eval_shape(function),
    )


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Splits a batch, of which each process has its own rows `[B / P, ...]`, over the devices."""
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def own_rows(array: jax.Array) -> np.ndarray:
    """Returns the rows of a split array that are with this process: all, if it is alone."""
    if array.is_fully_addressable:
        return np.asarray(array)
    shards = sorted(array.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])


def all_gather(own: np.ndarray) -> np.ndarray:
    """Returns the arrays `[...]` of all processes, one shape, as `[P, ...]` in each of them."""
    return np.asarray(multihost_utils.process_allgather(own)).reshape(-1, *own.shape)


def all_equal(text: str) -> bool:
    """Whether all processes have the same text."""
    checksum = zlib.crc32(text.encode())
    return len(set(all_gather(np.asarray(checksum, np.uint32)).tolist())) == 1


def map_batch(
    function: Callable[[PyTree, PyTree], PyTree], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    """Compiles a function of parameters and a batch whose results are one per image."""
    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    return jax.jit(
        jax.shard_map(
            function, mesh=mesh, in_specs=(whole, split), out_specs=split, check_vma=False
        )
    )
