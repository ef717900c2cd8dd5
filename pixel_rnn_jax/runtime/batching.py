"""Any number of images through a compiled function, some at a time."""

import functools
import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from pixel_rnn_jax import terminal
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import devices

PyTree = Any


def in_batches(
    function: Callable[..., PyTree],
    static: tuple[Any, ...],
    common: PyTree,
    rows: PyTree,
    *,
    least: int = 1,
    most: int,
    progress: str = "",
) -> PyTree:
    """Calls `function(*static, common, rows)` for some rows at a time on all local devices.

    Rows and results are arrays with one row for each image. A device gets from `least` to `most`
    rows: `most`, or a power of two times `least`, so that little is compiled; the last batch is
    padded. A function is compiled once for all calls with the same `static`, which is compared by
    value. With `progress`, the name of the work, Ctrl-C ends it amid a batch.
    """
    leaves = *jax.tree.leaves((common, rows)), jnp.zeros(())  # Inside `jit` this is a tracer too.
    if any(isinstance(leaf, jax.core.Tracer) for leaf in leaves):
        raise UserError(
            "inside jit or vmap, use this method of model.pixel_rnn, given model.params"
        )
    count = len(jax.tree.leaves(rows)[0])
    mesh = devices.local_mesh(max(1, min(jax.local_device_count(), math.ceil(count / least))))
    run = _compiled(function, static, mesh)
    common = _on_all_devices(common, mesh)
    size = most * mesh.size
    starts = range(0, max(count, 1), size)
    bar = terminal.progress(starts, len(starts), progress, "batch") if progress else starts
    results = []
    for start in bar:
        batch = jax.tree.map(lambda x, i=start: np.asarray(x[i : i + size]), rows)
        units = math.ceil(min(count - start, size) / (least * mesh.size))
        full = mesh.size * min(most, least << max(units - 1, 0).bit_length())
        results.append(run(common, jax.tree.map(lambda x, n=full: padded(x, n), batch)))
        begin = time.monotonic()  # A call that waits for a device does not hear Ctrl-C.
        while progress and not all(x.is_ready() for x in jax.tree.leaves(results[-1])):
            time.sleep(min(0.5, max(0.001, (time.monotonic() - begin) / 50)))
    # Through the host, since they lie on several devices.
    return jax.tree.map(
        lambda *parts: jnp.asarray(np.concatenate([*map(np.asarray, parts)])[:count]), *results
    )


_copies: list[dict[Any, Any]] = [{}]


def _on_all_devices(tree: PyTree, mesh: Mesh) -> PyTree:
    """Returns arrays on every device; copies of those of the last call are kept.

    To copy parameters takes 2 ms, a quarter of what a small model takes for 16 images.
    """
    leaves, structure = jax.tree.flatten(tree)
    kept, keys = _copies[0], [(id(leaf), mesh) for leaf in leaves]
    missing = {key: leaf for key, leaf in zip(keys, leaves, strict=True) if key not in kept}
    placed = jax.device_put([*missing.values()], devices.replicated(mesh))
    new = {key: (missing[key], copy) for key, copy in zip(missing, placed, strict=True)}
    # An array keeps its identity while it is here. Those of NumPy may change.
    pairs = {key: kept.get(key) or new[key] for key in keys}
    _copies[0] = {key: pair for key, pair in pairs.items() if isinstance(pair[0], jax.Array)}
    return jax.tree.unflatten(structure, [pairs[key][1] for key in keys])


@functools.lru_cache(maxsize=32)
def _compiled(
    function: Callable[..., PyTree], static: tuple[Any, ...], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    return devices.map_batch(functools.partial(function, *static), mesh)


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """Returns `size` rows: those of the array, and zeros."""
    return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))
