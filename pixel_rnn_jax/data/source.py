"""A split of a set as a model sees it: checked, and if asked for, binarised or dequantised."""

import dataclasses
import math
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from etils import epath

from pixel_rnn_jax.config import Config, DataConfig
from pixel_rnn_jax.data.arrays import open_array_file, open_digits
from pixel_rnn_jax.data.conditions import condition_reader
from pixel_rnn_jax.data.folder import has_images, open_folder
from pixel_rnn_jax.data.images import Batch, value_dtype
from pixel_rnn_jax.data.records import SPLITS, Records, finite, open_part
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.paths import expanded

# "mnist", "downsampled_imagenet/32x32", "cifar10:3.0.2"; any other form is a path.
_TFDS_NAME = re.compile(r"(?P<set>[a-zA-Z]\w*)(/[\w+.-]+)?(:[\d.*]+)?")
IN_MEMORY = "arrays in memory"
"""What the name of a set of arrays begins with."""
FIRST = 64
"""Images that are looked at for what their values can mean."""
# The first number of a random key: binarisation by record, by position in training, and for draw
# n of noise, _NOISE + n.
_BY_RECORD, _BY_POSITION, _NOISE = 0, 1, 2
_MIRROR = 1  # The last number of the key that decides whether an image is mirrored.

Key = tuple[int, ...]


class Source:
    """The images of one split, read by record number.

    Binarisation makes a value v of K stored levels 1 with probability p = v / (K - 1). "dynamic"
    draws anew at each visit in training. "fixed" draws once for each record, by where it is stored,
    whatever the seed and the part of the set; evaluation with "dynamic" uses this draw too.
    "threshold" gives 1 where p > 1/2.

    Noise is uniform in [0, 1): new at each visit in training, fixed in evaluation.

    With `data.flip`, half of the images are mirrored in training, others at each visit.

    For a model of real values (model.output "gaussian_mixture") all values are numbers as they are
    stored, without binarisation or noise.

    Attributes:
        image_shape: (H, W, C).
        levels: K of the images, after binarisation; 0 of real values.
        dtype: Of the images: `value_dtype(levels)`, or float32 with noise and of real values.
        class_names: The names of the classes of a model with classes; () if they have none.
    """

    def __init__(self, records: Records, config: Config, noise: int | None):
        self._records = records
        self._stored_levels = _stored_levels(records, config)
        self._binarize = config.data.binarize
        self._flip = config.data.flip
        self._noise = noise if self._stored_levels else None
        self._condition = condition_reader(records, config.model)
        self.image_shape = records.image_shape
        self.levels = self._stored_levels if self._binarize == "none" else 2
        levels = self.levels > 0 and self._noise is None
        self.dtype = value_dtype(self.levels) if levels else np.dtype(np.float32)
        self.class_names = records.class_names if config.model.num_classes else ()

    def __len__(self) -> int:
        return len(self._records.keys)

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        positions: Sequence[int] | None = None,
        seed: int = 0,
    ) -> Batch:
        """Returns the records `indices` as evaluation sees them, or with `positions`, as training.

        Args:
            indices: Record numbers, [B].
            positions: Places in the stream of training images, [B], which with `seed` determine the
                draws.
            seed: The run's seed.

        Raises:
            UserError: A stored value is not below the number of levels, or a number is NaN or
                infinite; or a file is damaged.
        """
        indices = np.asarray(indices)
        records = visits_in_evaluation(self._records, indices)
        visits: Sequence[Key] = records
        if positions is not None:
            visits = [(_BY_POSITION, seed, position) for position in positions]
        images = self._stored(indices)
        if self._binarize != "none":
            chances = images / (self._stored_levels - 1)
            keys = visits if self._binarize == "dynamic" else records
            threshold = self._binarize == "threshold"
            images = chances > (0.5 if threshold else _uniform(keys, self.image_shape))
        images = images.astype(self.dtype, copy=False)
        if self._noise is not None:
            images = add_noise(images, visits, self._noise)
        if self._flip and positions is not None:
            mirrored = _uniform([(*visit, _MIRROR) for visit in visits], (1, 1, 1)) < 0.5
            images = np.where(mirrored, images[:, :, ::-1], images)
        return Batch(images, self._condition(indices) if self._condition else None)

    def check(self, indices: np.ndarray) -> None:
        """Reads records without drawing anything.

        Raises:
            UserError: As `batch` does.
        """
        self._stored(indices)
        if self._condition:
            self._condition(indices)

    def record_names(self) -> np.ndarray:
        """Returns the names of all records, `[N]` strings: see `Records`."""
        return self._records.record_names()

    def _stored(self, indices: np.ndarray) -> np.ndarray:
        images = self._records.read(indices)
        if not self._stored_levels:
            return finite(images, indices, self._records.name)
        wrong = (images < 0) | (images >= self._stored_levels)
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            raise UserError(
                f"record {indices[first[0]]} of {self._records.name} has the value "
                f"{images[first]}, but its values must be 0 to {self._stored_levels - 1}: renumber "
                "them, or set data.levels to how many there are"
            )
        return images


def visits_in_evaluation(records: Records, indices: np.ndarray) -> list[Key]:
    """Returns the keys by which evaluation draws: those of the records, whatever the seed."""
    return [(_BY_RECORD, *key) for key in records.keys[indices].tolist()]


def add_noise(images: np.ndarray, visits: Sequence[Key], draw: int = 0) -> np.ndarray:
    """Returns levels `[B, H, W, C]` of float32 with uniform noise: draw `draw` of each visit."""
    keys = [(_NOISE + draw, *key) for key in visits]
    noisy = (images + _uniform(keys, images.shape[1:])).astype(images.dtype)
    # Rounding to float32 may reach the next level.
    return np.minimum(noisy, np.nextafter(images + 1, images))


def open_source(config: Config, split: str, *, noise: int | None = None) -> Source:
    """Opens a split for the model of a run, with what the model is conditioned on.

    Args:
        config: The set and the model.
        split: "train", "validation" or "test" for `config.data.train_split` and so on, or a split
            of the set itself.
        noise: Number of the draw of noise that is added to levels. By default, none for a discrete
            model and draw 0 for a continuous one.

    Raises:
        UserError: See `open_records`; or the number of levels is unknown, the values are not of
            the kind that the model takes, or its condition is missing or does not fit.
    """
    if split in SPLITS:
        split = getattr(config.data, f"{split}_split")
    if noise is None and config.model.output == "logistic_mixture":
        noise = 0
    return Source(open_records(config.data, split), config, noise)


def open_records(config: DataConfig, split: str) -> Records:
    """Opens a split of the set that `config.name` names, as it is stored.

    Args:
        config: `name` and `data_dir` are used.
        split: A TFDS split, a subfolder, or a key of an .npz file. An undivided set has the splits
            "train", "validation" and "test", by a fixed permutation (digits 1297/250/250, others
            80/10/10 percent), and "all". Of each a part may be taken, as in "test[:300]".

    Raises:
        UserError: There is no such set or split, it is not prepared, or it does not hold images of
            one size with integer values (or of an array, any numbers).
    """
    if config.name.startswith(IN_MEMORY):
        raise UserError(
            "the run was trained on arrays in memory, which no file holds: give images of your own"
        )
    path, name = Path(expanded(config.name, "data.name")), f"data.name {config.name!r}"
    if config.name == "digits":
        return open_part(lambda split: open_digits(name, split), split)
    array, tfds_name = path.suffix in (".npy", ".npz"), _TFDS_NAME.fullmatch(config.name)
    if (array or not tfds_name) and not path.exists():
        kind = "file" if array else "folder"
        raise UserError(
            f"{name}: there is no such {kind}; if it has moved, say where it is now with "
            "--config.data.name, or with --data of evaluate and complete"
        )
    if array:
        return open_part(lambda split: open_array_file(path, name, split), split)
    if tfds_name:
        from pixel_rnn_jax.data.tfds import open_tfds  # TFDS is imported only where it is used.

        if (records := open_tfds(config, split)) is not None:
            return records
    return open_part(lambda split: open_folder(path, name, split), split)


def moved(config: DataConfig, place: str) -> DataConfig:
    """Returns the config of a set that is now at `place`: a folder or file, or a TFDS folder.

    A name that may be that of a TFDS set or of a folder is that of a folder if `place` has images
    and no such set.
    """
    name = None if config.name == "digits" else _TFDS_NAME.fullmatch(config.name)
    folder = epath.Path(expanded(place))
    if name and folder.suffix not in (".npy", ".npz"):
        here = (folder / name["set"]).is_dir()
        if here or not has_images(Path(folder)):
            return dataclasses.replace(config, data_dir=place)
    return dataclasses.replace(config, name=place)


def _stored_levels(records: Records, config: Config) -> int:
    """Returns K of the stored values; 0 for a model of real values."""
    data, output = config.data, f'model.output "{config.model.output}"'
    if config.model.output == "gaussian_mixture":
        if data.levels or data.binarize != "none":
            raise UserError(
                f'{output} takes values as they are: data.levels must be 0 and data.binarize "none"'
                f', got {data.levels} and "{data.binarize}"'
            )
        return 0
    if records.dtype.kind == "f":
        raise UserError(
            f"{records.name} has values of type {records.dtype}, but {output} takes integers from "
            "0 to K-1: turn the values into levels, for example np.round(255 * x).astype(np.uint8),"
            " or set model.output=gaussian_mixture"
        )
    levels = data.levels or records.levels
    if levels is None:
        raise UserError(
            f"data.levels must be set: values of type {records.dtype} in {records.name} do not "
            "tell how many levels there are"
        )
    if not (data.levels or records.declared_levels) and levels > 2:
        first = records.read(np.arange(min(len(records.keys), FIRST)))
        if first.max() == 1:
            raise UserError(
                f"{records.name} has the values 0 and 1 in its first images, but the type "
                f"{records.dtype} stands for {levels} levels: set data.levels=2, or {levels} if "
                "others have more"
            )
    return levels


def _uniform(keys: Sequence[Key], shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers in [0, 1), [B, *shape], one random stream for each key."""
    # NumPy promises never to change the raw output of a bit generator; distributions may change.
    raw = np.stack([np.random.PCG64(key).random_raw(math.prod(shape)) for key in keys])
    return ((raw >> 11) * 2.0**-53).reshape(-1, *shape)
