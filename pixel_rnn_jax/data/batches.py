"""Batches for training and evaluation, on one process or several."""

import math
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np

from pixel_rnn_jax.data.images import Batch, Readable
from pixel_rnn_jax.data.source import Source
from pixel_rnn_jax.errors import UserError

ENDLESS = 2**53
"""Images that are never all read."""


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields batches endlessly. Every epoch has each image once, in a new order.

    Batch s depends on `seed` and s alone, so the step number is all that a resumed run needs. Row j
    of batch s belongs to process j mod `process_count`: the batch over all processes does not
    depend on their number.

    Args:
        source: The training images, perhaps fewer than a batch.
        batch_size: B, images of a step over all processes.
        seed: Seed of the order, of dynamic binarisation and of noise.
        start_step: Number of batches to skip, without reading them.
        process_index: Number of this process.
        process_count: Number of processes.

    Returns:
        An iterator over batches of B / `process_count` images, which reads ahead.

    Raises:
        UserError: `process_count` does not divide B.
    """
    rows = _rows(batch_size, process_count, "train.batch_size")

    def read(step: int, indices: np.ndarray) -> Batch:
        positions = (step * rows + np.arange(rows)) * process_count + process_index
        return source.batch(indices, positions.tolist(), seed)

    stream = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    # Grain counts the batches of an endless stream in floats, which one image a batch overflows.
    batches = stream[process_index:ENDLESS:process_count].batch(rows).map_with_index(read)
    return _iterate(batches[start_step:])


def eval_batches(
    source: Readable, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields every image exactly once, in the order of the set.

    Args:
        source: The images.
        batch_size: B, images of a batch over all processes.
        process_index: Number of this process, which has B / `process_count` rows of each batch in
            sequence.
        process_count: Number of processes.

    Returns:
        An iterator over (batch of B / `process_count` images, valid), which reads ahead. `valid` is
        False for images that pad the last batch. All processes have the same number of batches.

    Raises:
        UserError: `process_count` does not divide B.
    """
    rows = _rows(batch_size, process_count, "train.eval_batch_size")

    def read(batch: int) -> tuple[Batch, np.ndarray]:
        indices = batch * batch_size + process_index * rows + np.arange(rows)
        return source.batch(np.minimum(indices, len(source) - 1)), indices < len(source)

    return _iterate(grain.MapDataset.range(math.ceil(len(source) / batch_size)).map(read))


def _rows(batch_size: int, process_count: int, field: str) -> int:
    """Returns how many images of a batch each process has."""
    if batch_size % process_count:
        raise UserError(
            f"{field} must be a multiple of the number of processes, got {batch_size} for "
            f"{process_count} processes"
        )
    return batch_size // process_count


def _iterate(batches: Any) -> Iterator[Any]:
    # Enough to hide a slow read, without taking cores from training.
    options = grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)
    return iter(batches.to_iter_dataset(options))
