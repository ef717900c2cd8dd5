"""Images and their labels: sets on disk, the values that a model sees, and batches of them.

`open_source` opens a split, `train_batches` and `eval_batches` iterate over it, and `check_images`
checks images that a user gives. This room imports `config` and `errors` of the package, and the
libraries that read a set only when they are needed.
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
