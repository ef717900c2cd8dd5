"""Any number of images through a compiled function, some at a time."""

import functools
import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from pixel_rnn_jax.system import devices, processes, terminal
from pixel_rnn_jax.system.trees import PyTree


def in_batches(
    function: Callable[..., PyTree],
    static: tuple[Any, ...],
    common: PyTree,
    batches: Iterable[PyTree],
    count: int,
    *,
    mesh: Mesh,
    batch_size: int,
    progress: str = "",
) -> PyTree:
    """Calls `function(*static, common, rows)` for batches of rows, and returns `count` results.

    Rows and results (NumPy's) are arrays with one row for each image. A function is compiled once
    for all calls with equal `static` and batches of one size. Every device has all of `common`.

    Every process passes the same number of batches, with the rows of its own devices; a full batch
    has `batch_size` rows over all processes. Rows beyond `count` are padding. With `progress`, the
    name of the work, there is a bar, and Ctrl-C ends it amid a batch.
    """
    run = _compiled(function, static, mesh)
    sent = (run(common, devices.shard_batch(mesh, batch)) for batch in batches)
    # The next batch is dispatched before a result is waited for, so that no device is idle.
    pairs = itertools.pairwise(itertools.chain(sent, [None]))
    late: Iterable[PyTree] = (result for result, _ in pairs)
    if progress:
        total = math.ceil(count / batch_size)
        late = map(wait, terminal.progress(late, total, progress, "batch"))
    results = [jax.tree.map(processes.whole, result) for result in late]
    return jax.tree.map(lambda *batches: np.concatenate(batches)[:count], *results)


def slices(rows: PyTree, mesh: Mesh, *, least: int = 1, most: int) -> Iterator[PyTree]:
    """Yields batches of rows in memory; the last one is padded with zeros.

    A device gets `most`, or a power of two times `least`, so that little is compiled.
    """
    count, size = len(jax.tree.leaves(rows)[0]), most * mesh.size
    for start in range(0, max(count, 1), size):
        units = math.ceil(min(count - start, size) / (least * mesh.size))
        full = mesh.size * min(most, least << max(units - 1, 0).bit_length())
        yield jax.tree.map(lambda x, i=start, n=full: padded(np.asarray(x[i : i + size]), n), rows)


def wait(tree: PyTree) -> PyTree:
    """Waits for arrays: a call that waits for a device does not hear Ctrl-C."""
    begin = time.monotonic()
    arrays: Any = [leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array)]
    while not all(array.is_ready() for array in arrays):
        time.sleep(min(0.5, max(0.001, (time.monotonic() - begin) / 50)))
    return tree


@functools.lru_cache(maxsize=32)
def _compiled(
    function: Callable[..., PyTree], static: tuple[Any, ...], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    return devices.map_batch(functools.partial(function, *static), mesh)


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """Returns `size` rows: the array's, then zeros."""
    return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))
