"""Data parallelism: one mesh axis, `data`, over which batches are split and gradients averaged."""

import contextlib
import ctypes
import functools
import os
import zlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import multihost_utils
from jax.flatten_util import ravel_pytree
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


def everywhere(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec())


def shapes_everywhere(function: Callable[[], PyTree], mesh: Mesh) -> PyTree:
    """Returns what `function` would return, whole on every device, as shapes and types alone."""
    sharding = everywhere(mesh)
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


def from_all(own: np.ndarray) -> np.ndarray:
    """Returns the arrays `[...]` of all processes, one shape, as `[P, ...]` in each of them."""
    return np.asarray(multihost_utils.process_allgather(own)).reshape(-1, *own.shape)


def same_everywhere(text: str) -> bool:
    """Whether all processes have the same text."""
    checksum = zlib.crc32(text.encode())
    return len(set(from_all(np.asarray(checksum, np.uint32)).tolist())) == 1


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


def _mean_over(
    micro_batches: int, function: Callable[[PyTree, PyTree], PyTree], params: PyTree, batch: PyTree
) -> PyTree:
    """Returns the mean of what `function` makes of the equal parts of a batch, one at a time."""
    if micro_batches == 1:
        return function(params, batch)
    parts = jax.tree.map(lambda x: x.reshape(micro_batches, -1, *x.shape[1:]), batch)

    def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(params, part)), None

    shapes = jax.eval_shape(function, params, jax.tree.map(lambda x: x[0], parts))
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
    total, _ = jax.lax.scan(add, zeros, parts)
    return jax.tree.map(lambda x: x / micro_batches, total)


def initial_state(
    params: PyTree,
    optimizer: optax.GradientTransformation,
    average_decay: float,
    part: str | None = None,
) -> dict[str, PyTree]:
    """Returns the state that the first update of `make_train_step` takes."""
    return {
        "params": params,
        # A copy: the two are given up one by one when a step replaces them.
        "average": jax.tree.map(jnp.copy, params) if average_decay else {},
        "opt_state": optimizer.init(params[part] if part else params),
        "step": jnp.zeros((), jnp.int32),
    }


def make_train_step(
    loss_fn: Callable[[PyTree, PyTree], jax.Array],
    optimizer: optax.GradientTransformation,
    average_decay: float,
    mesh: Mesh,
    part: str | None = None,
    first_step: int = 0,
    micro_batches: int = 1,
) -> Callable[..., tuple[dict[str, PyTree], dict[str, jax.Array]]]:
    """Compiles one update of a training state.

    Args:
        loss_fn: (parameters, batch) to nats, `[B, parts]`, which are added up.
        optimizer: the update rule.
        average_decay: of the moving average of the parameters; 0 for none.
        mesh: the devices; each has the whole state and an equal share of the batch.
        part: the entry of the parameters that is trained, with an `opt_state` and an average of its
            own; None trains all of them.
        first_step: the updates that were made before the first one of this part.
        micro_batches: into how many equal parts each device cuts its share of the batch. Their
            gradients are added up one after the other, so that the memory of the backward pass is
            that of one part.

    Returns:
        A function of the state (params, average, opt_state, step; other entries pass unchanged), a
        batch, and if wanted booleans `[devices]`: whether a process asks that training stop. It
        returns the next state and the means of `nats` per image and of the `grad_norm` before
        clipping, with a `stop` above 0 in every process if one has asked. The state that it is
        given is used up.
    """

    def trained(tree: PyTree) -> PyTree:
        return tree[part] if part else tree

    def with_trained(tree: PyTree, new: PyTree) -> PyTree:
        return tree | {part: new} if part else new

    def step(
        state: dict[str, PyTree], batch: PyTree, asked: jax.Array | None
    ) -> tuple[dict[str, PyTree], dict[str, jax.Array]]:
        def mean_loss(params: PyTree, batch: PyTree) -> jax.Array:
            return loss_fn(with_trained(state["params"], params), batch).sum(-1).mean()

        before = trained(state["params"])
        nats, gradient = _mean_over(micro_batches, jax.value_and_grad(mean_loss), before, batch)
        # One vector, so that there is one all-reduce rather than one for each parameter.
        stop = jnp.zeros((), nats.dtype) if asked is None else asked.any().astype(nats.dtype)
        vector, unravel = ravel_pytree((nats, gradient, stop))
        nats, gradient, stop = unravel(jax.lax.pmean(vector, AXIS))
        updates, opt_state = optimizer.update(gradient, state["opt_state"], before)
        params = optax.apply_updates(before, updates)
        new = state | {
            "params": with_trained(state["params"], params),
            "opt_state": opt_state,
            "step": state["step"] + 1,
        }
        if average_decay:
            # Early on the average covers the last tenth of the steps, not the random start.
            count = new["step"] - first_step
            decay = jnp.minimum(average_decay, (1 + count) / (10 + count))
            average = optax.incremental_update(params, trained(state["average"]), 1 - decay)
            new["average"] = with_trained(state["average"], average)
        return new, {"nats": nats, "grad_norm": optax.tree.norm(gradient), "stop": stop}

    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(whole, split, split), out_specs=whole, check_vma=False
    )

    @functools.partial(jax.jit, donate_argnums=0)
    def train_step(
        state: dict[str, PyTree], batch: PyTree, asked: jax.Array | None = None
    ) -> tuple[dict[str, PyTree], dict[str, jax.Array]]:
        return mapped(state, batch, asked)

    return train_step
