"""Image sets on disk with their labels, the values that a model sees, and batches of them.

This room imports `config` and `errors`. It imports scikit-learn and TFDS only to read their sets.
"""

from pixel_rnn_jax.data.batches import eval_batches, train_batches
from pixel_rnn_jax.data.images import Batch, check_images, check_labels, value_dtype
from pixel_rnn_jax.data.records import Records
from pixel_rnn_jax.data.source import Source, open_records, open_source

__all__ = [
    "Batch",
    "Records",
    "Source",
    "check_images",
    "check_labels",
    "eval_batches",
    "open_records",
    "open_source",
    "train_batches",
    "value_dtype",
]
