"""Image sets on disk with their labels or conditions, and batches of what a model sees of them.

This room imports `config`, `image_files`, `paths` and `errors`. It imports scikit-learn and TFDS
only to read their sets.
"""

from pixel_rnn_jax.data.batches import eval_batches, train_batches
from pixel_rnn_jax.data.digest import checking, digest
from pixel_rnn_jax.data.images import Batch, Readable, value_dtype
from pixel_rnn_jax.data.memory import form_of_condition, memory_sources
from pixel_rnn_jax.data.read import Images, open_images, read_stored
from pixel_rnn_jax.data.records import Records, finite
from pixel_rnn_jax.data.source import (
    Source,
    add_noise,
    moved,
    open_records,
    open_source,
    visits_in_evaluation,
)
from pixel_rnn_jax.data.standard import standardisation

__all__ = [
    "Batch",
    "Images",
    "Readable",
    "Records",
    "Source",
    "add_noise",
    "checking",
    "digest",
    "eval_batches",
    "finite",
    "form_of_condition",
    "memory_sources",
    "moved",
    "open_images",
    "open_records",
    "open_source",
    "read_stored",
    "standardisation",
    "train_batches",
    "value_dtype",
    "visits_in_evaluation",
]
