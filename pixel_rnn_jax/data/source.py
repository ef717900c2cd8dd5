"""Images as the model sees them: checked, binarised or dequantised where asked, and in batches.

Only images are read, and labels for a model with classes, whatever else a set holds.
"""

import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pixel_rnn_jax.config import Config, DataConfig
from pixel_rnn_jax.data.images import Batch, value_dtype
from pixel_rnn_jax.data.records import Records, open_records, require
from pixel_rnn_jax.errors import UserError

# First number of the random keys, so that draws by record and by position, of binarisation and of
# noise, never coincide.
_BY_RECORD, _BY_POSITION = 0, 1
_NOISE = 2


Key = tuple[int, ...]


class Source:
    """One split of one set, read by record number.

    A value outside 0..K-1 raises `UserError` when it is read.

    With `data.binarize` other than "none" a value v of K stored levels becomes 1 with probability
    p = v / (K-1), and the images have 2 levels. Read by record number, "fixed" and "dynamic" give
    one and the same draw: it depends on where the record is stored alone, neither on a seed nor on
    which part of the set is read. "threshold" takes 1 where p > 1/2.

    With `noise`, for a density, uniform noise from [0, 1) is added to each value: at each visit of
    training anew, and read by record number always the same, one of many independent draws.

    Attributes:
        image_shape: (H, W, C).
        levels: K of the images that it gives.
        dtype: The smallest of uint8, uint16 and int32 that holds K levels; float32 with noise.
    """

    image_shape: tuple[int, int, int]
    levels: int
    dtype: np.dtype

    def __init__(
        self, records: Records, config: DataConfig, classes: int = 0, noise: int | None = None
    ):
        """Takes a set apart from its records.

        Args:
            records: The images as they are stored.
            config: What their values mean.
            classes: Of the model that they are for; 0 reads no labels.
            noise: The number of the draw of noise that is added; None adds none.

        Raises:
            UserError: The number of levels is not known, or the labels are missing or do not fit.
        """
        stored_levels = config.levels or records.levels
        if stored_levels is None:
            raise UserError(
                f"data.levels must be set: values of type {records.dtype} in {records.name} do not "
                "tell how many levels there are"
            )
        self._records = records
        self._stored_levels = stored_levels
        self._binarize = config.binarize
        self.image_shape = records.image_shape
        self.levels = stored_levels if config.binarize == "none" else 2
        self._noise = noise
        self.dtype = value_dtype(self.levels) if noise is None else np.dtype(np.float32)
        self._classes = classes
        if classes and records.labels is None:
            raise UserError(
                f"{records.name} has no labels: model.classes must be 0, or choose a labelled set "
                "(an .npz file may hold an array `labels`, an integer from 0 on for each image)"
            )
        if classes and records.classes > classes:
            raise UserError(
                f"{records.name} has {records.classes} classes, but model.classes is {classes}: "
                "set it to their number"
            )

    def __len__(self) -> int:
        return len(self._records.keys)

    def __getitem__(self, index: int) -> np.ndarray:
        """Returns one image, [H, W, C]."""
        if not 0 <= operator.index(index) < len(self):
            raise IndexError(f"record {index} of {len(self)}")
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        """Returns the images of the records `indices`, [B, H, W, C]."""
        indices = np.asarray(indices)
        keys = [(_BY_RECORD, *key) for key in self._records.keys[indices].tolist()]
        return self._finish(self._stored(indices), keys, keys)

    def visit(self, indices: np.ndarray, positions: np.ndarray, seed: int) -> np.ndarray:
        """Returns what training sees: with `data.binarize="dynamic"` a new draw at each visit.

        Args:
            indices: Record numbers, [B].
            positions: Where in the stream of training images each is met, [B]; with `seed` it
                decides the draw.
            seed: The run's seed.

        Returns:
            Images [B, H, W, C].
        """
        if self._binarize != "dynamic" and self._noise is None:
            return self.__getitems__(indices)
        visits = [(_BY_POSITION, seed, position) for position in positions.tolist()]
        fixed = [(_BY_RECORD, *key) for key in self._records.keys[indices].tolist()]
        drawn = visits if self._binarize == "dynamic" else fixed
        return self._finish(self._stored(indices), drawn, visits)

    def labels(self, indices: Sequence[int] | np.ndarray) -> np.ndarray | None:
        """Returns the classes of the records `indices`, [B]; None for a model without classes."""
        if not self._classes or self._records.labels is None:
            return None
        return self._records.labels(np.asarray(indices)).astype(np.int32)

    def batch(self, indices: Sequence[int] | np.ndarray) -> Batch:
        """Returns the records `indices` with their classes."""
        return Batch(self.__getitems__(indices), self.labels(indices))

    def _stored(self, indices: np.ndarray) -> np.ndarray:
        images = self._records.read(indices)
        wrong = (images < 0) | (images >= self._stored_levels)
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            raise UserError(
                f"record {indices[first[0]]} of {self._records.name} has the value "
                f"{images[first]}, but its values must be 0 to {self._stored_levels - 1}: renumber "
                "them, or set data.levels to how many there are"
            )
        return images

    def _finish(self, images: np.ndarray, keys: Sequence[Key], noise: Sequence[Key]) -> np.ndarray:
        images = self._binarized(images, keys)
        if self._noise is None:
            return images.astype(self.dtype, copy=False)
        low = images.astype(self.dtype)
        noisy = low + _uniform([(_NOISE + self._noise, *key) for key in noise], self.image_shape)
        # Rounding may reach the next level.
        return np.minimum(noisy.astype(self.dtype), np.nextafter(low + 1, low))

    def _binarized(self, images: np.ndarray, keys: Sequence[Key]) -> np.ndarray:
        if self._binarize == "none":
            return images
        chances = images / (self._stored_levels - 1)
        if self._binarize == "threshold":
            return chances > 0.5
        return _uniform(keys, self.image_shape) < chances


def _open_source(
    config: DataConfig, split: str, *, classes: int = 0, noise: int | None = None
) -> Source:
    """Opens one split of the set that the config describes.

    Args:
        config: The set.
        split: "train", "validation" or "test" stand for `config.train_split` and so on; any other
            name is one of the set's own, in TFDS split syntax for a TFDS set.
        classes: Of the model that they are for; 0 reads no labels.
        noise: The number of the draw of noise that is added, for a density; None adds none.

    Raises:
        UserError: There is no such set or split, it is not prepared, or it does not hold images of
            one size with integer values, or has no labels where they are needed.
    """
    named = {
        "train": config.train_split,
        "validation": config.validation_split,
        "test": config.test_split,
    }
    return Source(open_records(config, named.get(split, split)), config, classes, noise)


def open_source(config: Config, split: str, *, noise: int = 0) -> Source:
    """Opens one split as the model of a run takes it: with labels for classes, a density's noise.

    Raises:
        UserError: As `open_source` does.
    """
    draw = noise if config.model.output == "continuous" else None
    return _open_source(config.data, split, classes=config.model.classes, noise=draw)


def train_batches(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> Iterator[Batch]:
    """Yields batches for ever; every epoch has each image once, in an order of its own.

    Batch number s is a function of (seed, s) alone, so the state of the data is the step number,
    and starting late costs nothing. Position s * B + j of the stream is row j // P of batch s in
    process j % P: the P processes together have the same batch, whatever P is.

    Args:
        source: The training images, perhaps fewer than a batch.
        batch_size: B, images a step over all processes.
        seed: Decides the order, the draws of dynamic binarisation and the noise.
        start_step: Number of batches to leave out.
        process_index: Which of the processes this one is.
        process_count: P.

    Returns:
        An iterator over batches of B / P images that is read ahead of its use.

    Raises:
        UserError: P does not divide B.
    """
    rows = _rows(batch_size, process_count, "train.batch_size")

    def read(step: int, indices: np.ndarray) -> Batch:
        positions = (step * rows + np.arange(rows)) * process_count + process_index
        return Batch(source.visit(indices, positions, seed), source.labels(indices))

    grain = require("grain", "grain")
    stream = grain.MapDataset.range(len(source)).seed(seed).shuffle().repeat()
    batches = stream[process_index::process_count].batch(rows).map_with_index(read)
    return iter(batches[start_step:].to_iter_dataset(_reading(grain)))


def eval_batches(
    source: Source, *, batch_size: int, process_index: int = 0, process_count: int = 1
) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields every image exactly once, in the order of the set.

    Args:
        source: The images.
        batch_size: B, images a batch over all processes.
        process_index: Which of the processes this one is: it has the rows of each batch from
            `process_index * B / P` on.
        process_count: P.

    Returns:
        An iterator over (batch of B / P images, valid [B / P]). `valid` is False where the last
        batch is filled up with images that do not count; every process has as many batches.

    Raises:
        UserError: P does not divide B.
    """
    rows = _rows(batch_size, process_count, "train.eval_batch_size")

    def read(batch: int) -> tuple[Batch, np.ndarray]:
        indices = batch * batch_size + process_index * rows + np.arange(rows)
        valid = indices < len(source)
        indices = np.minimum(indices, len(source) - 1)
        return source.batch(indices), valid

    grain = require("grain", "grain")
    batches = grain.MapDataset.range(math.ceil(len(source) / batch_size)).map(read)
    return iter(batches.to_iter_dataset(_reading(grain)))


def _rows(batch_size: int, process_count: int, field: str) -> int:
    if batch_size % process_count:
        raise UserError(
            f"{field} must be a multiple of the number of processes, got {batch_size} for "
            f"{process_count} processes"
        )
    return batch_size // process_count


def _reading(grain: Any) -> Any:
    # Counted in batches: enough to hide a slow read, without taking the cores from training.
    return grain.ReadOptions(num_threads=2, prefetch_buffer_size=4)


def _uniform(keys: Sequence[Key], shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers in [0, 1), [B, *shape], each image's from its own key.

    They come from the raw output of a bit generator, which NumPy promises never to change, as it
    does not for its distributions.
    """
    raw = np.stack([np.random.PCG64(key).random_raw(math.prod(shape)) for key in keys])
    return ((raw >> 11) * 2.0**-53).reshape(-1, *shape)
