"""Image sets on disk with their labels or conditions, and batches of what a model sees of them.

This package may import config, files, errors, terminal and models.checks (the form of a condition).
It imports scikit-learn and TFDS only to read their sets.
"""

from pixel_rnn_jax.data.dataset import Batch, Dataset, Images, check_disjoint, value_dtype
from pixel_rnn_jax.data.files import open_dataset, read_files
from pixel_rnn_jax.data.loader import digest, eval_batches, standardisation, train_batches
from pixel_rnn_jax.data.transforms import Split, array_splits, open_images, open_split

__all__ = [
    "Batch",
    "Dataset",
    "Images",
    "Split",
    "array_splits",
    "check_disjoint",
    "digest",
    "eval_batches",
    "open_dataset",
    "open_images",
    "open_split",
    "read_files",
    "standardisation",
    "train_batches",
    "value_dtype",
]
