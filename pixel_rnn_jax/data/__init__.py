"""Image sets on disk with their labels or conditions, and batches of what a model sees of them.

This room imports `config` and `errors`. It imports scikit-learn and TFDS only to read their sets.
"""

from pixel_rnn_jax.data.batches import eval_batches, train_batches
from pixel_rnn_jax.data.images import Batch, value_dtype
from pixel_rnn_jax.data.memory import form_of_condition, memory_sources
from pixel_rnn_jax.data.records import Records
from pixel_rnn_jax.data.source import Source, open_records, open_source
from pixel_rnn_jax.data.standard import standardisation

__all__ = [
    "Batch",
    "Records",
    "Source",
    "eval_batches",
    "form_of_condition",
    "memory_sources",
    "open_records",
    "open_source",
    "standardisation",
    "train_batches",
    "value_dtype",
]
