"""x."""

from pixel_rnn_jax.data.images import Batch, check_images, check_labels, value_dtype
from pixel_rnn_jax.data.records import Records, open_records
from pixel_rnn_jax.data.source import Source, eval_batches, open_source, train_batches

__all__ = ["Batch", "Records", "Source", "check_images", "check_labels", "eval_batches", "open_records", "open_source", "train_batches", "value_dtype"]
