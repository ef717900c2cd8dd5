"""Image sets on disk with their labels or conditions, and batches of what a model sees of them."""

from etils import epy

# When they are first used: the command line reads a config without JAX.
with epy.lazy_api_imports(globals()):
    from pixel_rnn_jax.data.dataset import SPLITS as SPLITS
    from pixel_rnn_jax.data.dataset import Batch as Batch
    from pixel_rnn_jax.data.dataset import Dataset as Dataset
    from pixel_rnn_jax.data.dataset import ImageFormat as ImageFormat
    from pixel_rnn_jax.data.dataset import Images as Images
    from pixel_rnn_jax.data.dataset import balanced_classes as balanced_classes
    from pixel_rnn_jax.data.dataset import check_disjoint as check_disjoint
    from pixel_rnn_jax.data.dataset import evenly_spaced as evenly_spaced
    from pixel_rnn_jax.data.loader import digest as digest
    from pixel_rnn_jax.data.loader import eval_batches as eval_batches
    from pixel_rnn_jax.data.loader import standardisation as standardisation
    from pixel_rnn_jax.data.loader import train_batches as train_batches
    from pixel_rnn_jax.data.open import open_dataset as open_dataset
    from pixel_rnn_jax.data.open import read_files as read_files
    from pixel_rnn_jax.data.readers import READERS as READERS
    from pixel_rnn_jax.data.split import Split as Split
    from pixel_rnn_jax.data.split import own_images as own_images
