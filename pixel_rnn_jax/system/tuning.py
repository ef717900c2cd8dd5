"""How much is computed at a time: numbers that were measured, by the platform of the backend.

Results agree to rounding whatever they are; only `lanes` also decides which images a key draws.
"""

import os
from collections.abc import Callable

import jax

from pixel_rnn_jax.system.trees import PyTree

CPU_PIXELS = 1024
"""Pixels whose maps stay in the caches; about one image of MNIST or CIFAR-10."""
CPU_IMAGES_PER_SCAN = 4
"""Recurrent models get this many times more images per part: they share the steps of a scan."""
CPU_SHARED = 8
"""And this many times more if a device has several cores: they share each operation."""
CPU_LANES, ACCELERATOR_LANES = 8, 128
BATCH_BYTES = 256 * 2**20
"""About the largest array of a batch, which limits the number of its images."""


def cores() -> int:
    """Returns the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def lanes() -> int:
    """Returns the number of images that a device generates at a time; fewer are padded.

    It is fixed, as another number may change the last bits of a program, and so, rarely, a value.
    """
    return CPU_LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES


def parts(images: int, pixels: int, *, recurrent: bool) -> int:
    """Returns the number of equal parts of a batch, so that maps of a part stay in CPU caches.

    `pixels` is H * W; `recurrent` says whether a layer scans them.
    """
    # The batch may be a symbol of `jax.export`.
    if jax.default_backend() != "cpu" or not isinstance(images, int):
        return 1
    most = max(CPU_PIXELS // pixels, 1) * (CPU_IMAGES_PER_SCAN if recurrent else 1)
    most *= CPU_SHARED if cores() >= 2 * jax.local_device_count() else 1
    return next((n for n in range(1, images + 1) if images % n == 0 and images // n <= most), 1)


def in_parts(function: Callable[..., PyTree], number: int, rows: PyTree) -> PyTree:
    """Calls a function of a batch for `number` equal parts of its rows, one after another."""
    if number == 1:
        return function(rows)
    parts = jax.tree.map(lambda x: x.reshape(number, -1, *x.shape[1:]), rows)
    results = jax.lax.map(function, parts)
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), results)
