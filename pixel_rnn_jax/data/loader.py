"""Passes over a split: batches of training and evaluation, its digest and its standardisation."""

import hashlib
import math
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from pixel_rnn_jax.data.dataset import Batch
from pixel_rnn_jax.data.split import Split

DIGEST_VALUES, STANDARDISATION_IMAGES = 2**32, 50_000
"""How much is read at most, so that a larger set costs no more."""
AT_ONCE = 500


def train_batches(
    split: Split,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields batches endlessly, reading ahead. Every epoch has each image once, in a new order.

    Batch s depends on `seed` and s alone; none before `start_step` is read. Process p gets rows p,
    p + `process_count`, ...: the global batch is the same for any number of processes.
    """
    rows = batch_size // process_count

    def read(step: int, indices: np.ndarray) -> Batch:
        positions = (step * rows + np.arange(rows)) * process_count + process_index
        return split.batch(indices, positions.tolist(), seed)

    stream = grain.MapDataset.range(len(split)).seed(seed).shuffle().repeat()
    # Grain counts the batches of an endless stream in floats, which one image a batch overflows.
    batches = stream[process_index : 2**53 : process_count].batch(rows).map_with_index(read)
    return _iterate(batches[start_step:])


def eval_batches(
    split: Split, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields (batch, valid) with every image once, in the order of the set, reading ahead.

    Each process has `batch_size` / `process_count` consecutive rows of every batch. `valid` is
    False for padding of the last one.
    """
    rows = batch_size // process_count

    def read(batch: int) -> tuple[Batch, np.ndarray]:
        indices = batch * batch_size + process_index * rows + np.arange(rows)
        return split.batch(np.minimum(indices, len(split) - 1)), indices < len(split)

    return _iterate(grain.MapDataset.range(math.ceil(len(split) / batch_size)).map(read))


def digest(split: Split) -> str:
    """Returns a digest of a split as a model sees it, of at most `DIGEST_VALUES` values.

    A larger split has one image in two, or in three, and so on.
    """
    result = hashlib.sha256(repr((len(split), split.image_shape, split.levels)).encode())
    step = math.ceil(len(split) * math.prod(split.image_shape) / DIGEST_VALUES)
    rows = np.arange(0, len(split), step)
    starts = grain.MapDataset.range(0, len(rows), AT_ONCE)
    for batch in _iterate(starts.map(lambda start: split.batch(rows[start : start + AT_ONCE]))):
        for array in batch:
            if array is not None:
                result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()


def standardisation(split: Split) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel, `[C]`; std is 1 for a constant one."""
    count, channels = min(len(split), STANDARDISATION_IMAGES), split.image_shape[-1]
    # Image by image, so that large values lose no digits.
    means, variances = np.empty((2, count, channels))
    for start in range(0, count, AT_ONCE):
        rows = np.arange(start, min(start + AT_ONCE, count))
        values = split.batch(rows).images.reshape(len(rows), -1, channels).astype(np.float64)
        means[rows], variances[rows] = values.mean(1), values.var(1)
    std = np.sqrt(variances.mean(0) + means.var(0))
    return tuple(means.mean(0).tolist()), tuple(np.where(std > 0, std, 1.0).tolist())


def _iterate(batches: Any) -> Iterator[Any]:
    # Enough to hide a slow read, without taking cores from training.
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(batches.to_iter_dataset(options))
