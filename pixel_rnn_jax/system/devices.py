"""Devices of this process, and meshes with one axis, `data`, over which batches are split."""

import contextlib
import ctypes
import hashlib
import os
import platform
import re
from collections.abc import Callable
from pathlib import Path

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from pixel_rnn_jax.system import files, tuning
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.trees import PyTree

AXIS = "data"


def set_up() -> None:
    """Uses every core of a CPU as a device, and keeps compiled programs for the next start.

    Call it before JAX computes anything: later it raises a RuntimeError, and changes nothing. The
    variables JAX_NUM_CPU_DEVICES and JAX_COMPILATION_CACHE_DIR take precedence. glibc keeps freed
    memory (`mallopt`).

    >>> prnn.set_up()
    >>> model = prnn.load("digits")
    """
    set_up_host_devices()
    keep_programs()


def set_up_host_devices() -> None:
    """Makes every CPU core a JAX device, unless the environment sets the number of devices."""
    flags = os.environ.get("XLA_FLAGS", "")
    if "JAX_NUM_CPU_DEVICES" not in os.environ and "host_platform_device_count" not in flags:
        jax.config.update("jax_num_cpu_devices", tuning.cores())
    _keep_freed_memory()
    # With Eigen's thread pool XLA's CPU client deadlocks: one device waits in an all-reduce, on a
    # thread that the convolution of another device needs.
    if "--xla_cpu_multi_thread_eigen" not in flags:
        os.environ["XLA_FLAGS"] = f"{flags} --xla_cpu_multi_thread_eigen=false".strip()


def _keep_freed_memory() -> None:
    """Makes glibc keep what a step frees: mapping it again takes a third of a small step's time."""
    # One arena for the main thread, which compiles, and one for the devices. In a single one, what
    # compiling leaves behind makes each search for memory slow; with more, large maps are mapped
    # anew in each step.
    arenas, most_maps, trim_threshold, top_pad = -8, -4, -1, -2
    values = {arenas: 2, most_maps: 0, trim_threshold: 2**31 - 1, top_pad: 64 * 2**20}
    with contextlib.suppress(OSError, AttributeError):  # Another C library than glibc.
        for name, value in values.items():
            ctypes.CDLL(None).mallopt(name, value)


def keep_programs() -> None:
    """Keeps compiled programs in the cache folder, so that a second start compiles nothing."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    # A folder for each processor, since home folders travel and machine code does not.
    instructions = _cpuinfo("flags|Features") or platform.processor()
    folder = f"{platform.machine()}-{hashlib.sha256(instructions.encode()).hexdigest()[:8]}"
    jax.config.update("jax_compilation_cache_dir", str(files.cache_folder() / folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _cpuinfo(field: str) -> str:
    """Returns a field of the first core in /proc/cpuinfo, by a pattern; "" where it is missing."""
    file = Path("/proc/cpuinfo")  # Linux has it.
    match = re.search(rf"^(?:{field})\s*: (.*)$", file.read_text(), re.M) if file.exists() else None
    return match[1] if match else ""


def hardware(used: int) -> dict[str, str | int]:
    """Returns a description of the hardware of a run, on `used` devices of all processes."""
    device = jax.devices()[0]
    processor = _cpuinfo("model name") or platform.processor() or platform.machine()
    return {
        "platform": device.platform,
        "device": processor if device.platform == "cpu" else device.device_kind,
        "devices": used,
        "processes": jax.process_count(),
    }


def make_mesh(devices: int | None = None) -> Mesh:
    """Returns a mesh of the first `devices` of each process, or of as many as every one has.

    Devices of a process are neighbours, as its rows are in a batch; not so in `jax.make_mesh`.
    """
    by_process = [
        sorted(jax.local_devices(process), key=lambda device: device.id)
        for process in range(jax.process_count())
    ]
    fewest = min(map(len, by_process))
    count = fewest if devices is None else min(devices, fewest)
    return Mesh([device for local in by_process for device in local[:count]], AXIS)


def local_mesh(devices: int) -> Mesh:
    """Returns a mesh of the first `devices` of this process."""
    return Mesh(jax.local_devices()[:devices], AXIS)


def mesh_for(batch_size: int) -> Mesh:
    """Returns the largest mesh, with equally many devices of each process, that divides a batch."""
    processes = jax.process_count()
    rows, rest = divmod(batch_size, processes)
    if rest:
        rule = "train.batch_size / train.micro_batches must be a multiple of the processes"
        raise UserError(f"{rule}, got {batch_size} for {processes}")
    most = min(rows, make_mesh().size // processes)
    return make_mesh(max(n for n in range(1, most + 1) if rows % n == 0))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of an array that every device of the mesh holds in full."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(mesh: Mesh, batch: PyTree) -> PyTree:
    """Splits a batch over the devices along its first axis; each process gives its own rows."""
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(split, x), batch)


def map_batch(
    function: Callable[[PyTree, PyTree], PyTree], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    """Compiles a function of (parameters, batch) that returns one result per image.

    Each device holds all parameters and computes its rows of the batch.
    """
    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(function, mesh=mesh, in_specs=(whole, split), out_specs=split)
    return jax.jit(mapped)
