"""A digest of a split, by which a data set that has moved is known again."""

import hashlib

import numpy as np

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
    count = len(source)
    found = hashlib.sha256(repr((count, source.image_shape, source.levels)).encode())
    rows = np.unique(np.linspace(0, count - 1, SAMPLE).astype(int))
    for start in range(0, len(rows), AT_ONCE):
        for array in source.batch(rows[start : start + AT_ONCE]):
            if array is not None:
                found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()
