"""A look at a whole split before it is used: is it sound, and is it the one of an earlier run?"""

import contextlib
import hashlib
import math
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np

from pixel_rnn_jax.data.records import CACHE_BYTES
from pixel_rnn_jax.data.source import Source

SAMPLE, AT_ONCE = 1000, 100
"""Images that are looked at, so that a large set costs no more than a small one; read together."""


def digest(source: Source) -> str:
    """Returns a digest of how many images a split has and of `SAMPLE` of them, evenly spread.

    It is over the values and the condition that a model sees in evaluation, not over where they are
    stored.

    Raises:
        UserError: An image does not fit the model, or a file is damaged.
    """
    found = hashlib.sha256(repr((len(source), source.image_shape, source.levels)).encode())
    for rows in _rows(source, SAMPLE):
        for array in source.batch(rows):
            if array is not None:
                found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


@contextlib.contextmanager
def checking(*sources: Source) -> Iterator[Future[None]]:
    """Reads every image of some splits in a thread; of one larger than `CACHE_BYTES`, `SAMPLE`.

    `result` of the future waits for the end, and raises a UserError if an image or its condition
    does not fit the model, or a file is damaged. The thread ends with the `with`.
    """
    over = threading.Event()

    def check() -> None:
        for source in sources:
            large = len(source) * math.prod(source.image_shape) > CACHE_BYTES
            for rows in _rows(source, SAMPLE if large else len(source)):
                if over.is_set():
                    return
                source.check(rows)

    with ThreadPoolExecutor(1) as pool:
        try:
            yield pool.submit(check)
        finally:
            over.set()


def _rows(source: Source, count: int) -> Iterator[np.ndarray]:
    """Yields the numbers of `count` records, evenly spread, some at a time."""
    rows = np.unique(np.linspace(0, len(source) - 1, count).astype(int))
    for start in range(0, len(rows), AT_ONCE):
        yield rows[start : start + AT_ONCE]
