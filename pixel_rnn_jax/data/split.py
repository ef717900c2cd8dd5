"""A split as a model sees it: checked, binarised, dequantised or mirrored, and conditioned."""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from pixel_rnn_jax.config import Config, DataConfig, ModelConfig
from pixel_rnn_jax.data.dataset import (
    SPLITS,
    Batch,
    Dataset,
    image_ids,
    number_labels,
    random_order,
    value_dtype,
)
from pixel_rnn_jax.data.files import open_dataset, open_path
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import checks

if TYPE_CHECKING:
    from pixel_rnn_jax.pixel_rnn import PixelRNN

# The first number of a random key: binarisation by image, by position in training, and for draw n
# of noise, _NOISE + n.
_BY_IMAGE, _BY_POSITION, _NOISE = 0, 1, 2
_MIRROR = 1  # The last number of the key that decides whether an image is mirrored.


class Split:
    """The images of one split for a model, read by their numbers.

    Binarisation makes a value v of K stored levels 1 with probability p = v / (K - 1). "dynamic"
    draws anew at each visit in training. "fixed" draws once for each image, by where it is stored,
    whatever the seed and the part of the set; evaluation with "dynamic" uses this draw too.
    "threshold" gives 1 where p > 1/2. Noise is uniform in [0, 1): new at each visit in training,
    fixed in evaluation.

    Args:
        dataset: The stored images.
        model: Its output and its condition say what is read, and how.
        data: Its levels (0 takes those of the set, or of the type of its values), binarize and flip
            are used.
        noise: Number of the draw of noise that is added to levels; None for none.
        class_names: Names of the model's classes, which may have other numbers in the set; None
            takes those of the set.

    Attributes:
        levels: K of the images, after binarisation; 0 of real values.
        dtype: Of the images: `value_dtype(levels)`, or float32 with noise and of real values.
        class_names: Of a model with classes; () if they have no names.
        name, image_shape, ids, file_names: See `Dataset`.

    Raises:
        UserError: The number of levels is unknown, the values are not of the kind that the model
            takes, or its condition is missing or does not fit.
    """

    def __init__(
        self,
        dataset: Dataset,
        model: ModelConfig,
        data: DataConfig,
        *,
        noise: int | None = None,
        class_names: Sequence[str] | None = None,
    ):
        self._dataset, self._model, self._data = dataset, model, data
        self.name, self.image_shape = dataset.name, dataset.image_shape
        self.ids, self.file_names = dataset.ids, dataset.file_names
        self._stored_levels = _stored_levels(dataset, model, data, noise)
        self._noise = noise if self._stored_levels else None
        self.levels = self._stored_levels if data.binarize == "none" else 2
        is_level = self._stored_levels and dataset.images.dtype.kind != "f" and noise is None
        self.dtype = value_dtype(self.levels) if is_level else np.dtype(np.float32)
        self._condition = _condition(dataset, model)
        self.class_names: tuple[str, ...] = ()
        if model.num_classes:
            self.class_names = dataset.class_names if class_names is None else tuple(class_names)
            if isinstance(self._condition, np.ndarray):  # All at once, where they are not on disk.
                self._condition_of(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self._dataset)

    def names(self) -> list[str]:
        """Returns the names of all images: those of their files, or their rows in the array."""
        return self._dataset.names()

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        positions: Sequence[int] | None = None,
        seed: int = 0,
        *,
        known: np.ndarray | bool = True,
    ) -> Batch:
        """Returns the images `indices` [B] as evaluation sees them, or as training.

        In training, `positions` [B] in the stream of images and the run's `seed` determine the
        draws. Only values that are `known`, of a shape that broadcasts to `[B, H, W, C]`, are
        checked.

        Raises:
            UserError: A stored value is no level, a number is NaN or infinite, or a class is not
                one of the model's.
        """
        indices, binarize = np.asarray(indices), self._data.binarize
        images = np.asarray(self._dataset.images[indices])
        levels = 0 if images.dtype.kind == "f" else self._stored_levels
        images = self._checked(images, indices, levels, known=known)
        visits = by_image = [(_BY_IMAGE, *id_) for id_ in self.ids[indices].tolist()]
        if positions is not None:
            visits = [(_BY_POSITION, seed, position) for position in positions]
        if binarize != "none":
            keys = visits if binarize == "dynamic" else by_image
            least = 0.5 if binarize == "threshold" else _uniform(keys, self.image_shape)
            images = images / (self._stored_levels - 1) > least
        images = images.astype(self.dtype, copy=False)
        if self._noise is not None:
            noise = _uniform([(_NOISE + self._noise, *visit) for visit in visits], self.image_shape)
            # Rounding to float32 may reach the next level.
            next_level = np.nextafter(images + 1, images)
            images = np.minimum((images + noise).astype(np.float32), next_level)
        if self._data.flip and positions is not None:
            mirrored = _uniform([(*visit, _MIRROR) for visit in visits], (1, 1, 1)) < 0.5
            images = np.where(mirrored, images[:, :, ::-1], images)
        return Batch(images, self._condition_of(indices))

    def _condition_of(self, indices: np.ndarray) -> np.ndarray | None:
        if self._condition is None:
            return None
        numbers = stored = np.asarray(self._condition[indices])
        if not (count := self._model.num_classes):
            return self._checked(stored, indices, what="the condition of ")
        if self._dataset.class_names not in ((), self.class_names):
            stored = np.array(self._dataset.class_names)[stored]
            numbers = number_labels(stored, self.class_names)
        # Sets of TFDS may have -1 for no label.
        self._checked(numbers, indices, count, "model.num_classes", "the label of ", stored)
        return numbers.astype(np.int32)

    def _checked(
        self,
        numbers: np.ndarray,
        indices: np.ndarray,
        count: int = 0,
        field: str = "data.levels",
        what: str = "",
        stored: np.ndarray | None = None,
        known: np.ndarray | bool = True,
    ) -> np.ndarray:
        """Returns integers from 0 to `count` - 1; with 0 finite numbers, as float32."""
        stored = numbers if stored is None else stored
        if count:
            wrong, rule = (numbers < 0) | (numbers >= count), f"0 to {count - 1} ({field})"
        else:
            with np.errstate(over="ignore"):
                numbers = numbers.astype(np.float32, copy=False)
            wrong, rule = ~np.isfinite(numbers), "finite numbers of type float32"
        if (wrong := wrong & known).any():
            first = tuple(np.argwhere(wrong)[0])
            index = indices[first[0]]
            name = self.file_names[index] if self.file_names else f"image {self.ids[index, 1]}"
            raise UserError(
                f"{what}{name} of {self.name} has the value {stored[first]}, not one of {rule}"
            )
        return numbers


def open_split(config: Config, split: str, *, noise: int | None = None) -> Split:
    """Opens a split for the model of a run.

    It is "train", "validation" or "test" for `config.data.train_split` and so on, or a split of the
    set itself. `noise` numbers the draw of noise that is added to levels; by default a discrete
    model has none, and a continuous one draw 0.

    Raises:
        UserError: See `open_dataset` and `Split`.
    """
    if split in SPLITS:
        split = getattr(config.data, f"{split}_split")
    if noise is None and config.model.output == "logistic_mixture":
        noise = 0
    return Split(open_dataset(config.data, split), config.model, config.data, noise=noise)


def open_images(
    path: epath.PathLike, split: str | None, model: "PixelRNN", class_names: Sequence[str] = ()
) -> Split:
    """Opens a user's own images for a trained model.

    Levels are taken as they are stored, without binarisation. A density of levels gets them with
    the noise that evaluation adds, and floats as they are. `class_names` are those of the model.

    Raises:
        UserError: See `open_path` and `Split`; or the images are of another shape.
    """
    dataset = open_path(Path(path).expanduser(), repr(str(path)), split)
    if dataset.image_shape != model.image_shape:
        raise UserError(
            f"{dataset.name} has images of shape {list(dataset.image_shape)}, the model takes "
            f"{list(model.image_shape)}"
        )
    floats = dataset.images.dtype.kind == "f"
    noise = 0 if model.config.output == "logistic_mixture" and not floats else None
    levels = DataConfig(levels=model.levels)
    return Split(dataset, model.config, levels, noise=noise, class_names=class_names)


def array_splits(
    config: Config, images: Any, condition: Any, validation: Any
) -> tuple[Config, Split, Split]:
    """Makes training and validation images of arrays in memory; they are those of `fit`.

    Returns:
        The config, in which `data.levels` of 0 has become the largest value + 1, a model without
        condition takes that of the arrays, and `data.name` has a digest of them; and the splits.

    Raises:
        UserError: The arrays do not fit one another or the config.
    """
    whole = train = _of_arrays("training", images, condition)
    if isinstance(validation, (int, float, np.number)):
        count = max(1, round(float(validation) * len(whole)))
        if not 0 < validation < 1:
            raise UserError(f"validation must be a share between 0 and 1, got {validation}")
        order = random_order(len(whole))
        held_out = _named("validation", whole.part(np.sort(order[:count])))
        train = _named("training", whole.part(np.sort(order[count:])))
    else:
        images, condition = validation if isinstance(validation, tuple) else (validation, None)
        held_out = _of_arrays("validation", images, condition, whole.class_names)
    model, levels, digest = config.model, config.data.levels, 0
    if not checks.condition_form(model, whole.image_shape)[1]:
        if whole.labels is not None:
            count = len(whole.class_names) or int(whole.labels.max()) + 1
            model = dataclasses.replace(model, num_classes=max(2, count))
        elif whole.condition is not None:
            field = "condition_vector" if whole.condition.ndim == 2 else "condition_map"
            model = dataclasses.replace(model, **{field: whole.condition.shape[-1]})
    if not levels and model.output != "gaussian_mixture" and whole.images.dtype.kind in "biu":
        # Of all images, as a value may be in those alone that validate.
        levels = max(2, int(whole.images.max()) + 1, int(held_out.images.max()) + 1)
    for part in (train, held_out):
        for array in (part.images, part.labels, part.condition):
            if array is not None:
                digest = zlib.crc32(np.ascontiguousarray(array).view(np.uint8), digest)
    data = dataclasses.replace(config.data, name=f"arrays in memory {digest:08x}", levels=levels)
    noise = 0 if model.output == "logistic_mixture" else None
    splits = [Split(part, model, data, noise=noise) for part in (train, held_out)]
    return dataclasses.replace(config, model=model, data=data), splits[0], splits[1]


def _of_arrays(
    name: str, images: Any, condition: Any, class_names: tuple[str, ...] = ()
) -> Dataset:
    images, labels = np.asarray(images), None
    if condition is not None:
        condition = np.asarray(condition)
        if condition.dtype.kind == "O" and all(isinstance(each, str) for each in condition.flat):
            condition = condition.astype(str)  # As pandas keeps text.
        if condition.ndim == 1:
            labels, condition = condition, None
    ids = image_ids(name, len(images))
    return Dataset(f"the {name} set", images, ids, None, labels, class_names, condition)


def _named(name: str, dataset: Dataset) -> Dataset:
    ids = image_ids(name, len(dataset))
    return dataclasses.replace(dataset, name=f"the {name} set", ids=ids)


def _stored_levels(
    dataset: Dataset, model: ModelConfig, data: DataConfig, noise: int | None
) -> int:
    """Returns K of the stored values; 0 for a model of real values."""
    name, dtype, levels = dataset.name, dataset.images.dtype, data.levels
    if model.output == "gaussian_mixture":
        if levels or data.binarize != "none":
            raise UserError(
                'model.output "gaussian_mixture" takes values as they are: data.levels must be 0 '
                f'and data.binarize "none", got {levels} and "{data.binarize}"'
            )
        return 0
    floats = dtype.kind == "f" and (model.discrete or noise is not None)
    if floats or (dtype.kind == "b" and levels > 2):
        raise UserError(
            f'{name} has values of type {dtype}, but model.output "{model.output}" takes integers '
            f"from 0 to {levels - 1 if levels else 'K - 1'}: convert them, for example by "
            "np.round(255 * x).astype(np.uint8), or set model.output=gaussian_mixture"
        )
    if known := levels or dataset.levels or 2 * (dtype.kind == "b"):
        return known
    first = dataset.images[np.arange(min(len(dataset), 64))]
    if dtype != np.uint8 or first.max() == 1:
        raise UserError(
            f"data.levels must be set: values up to {first.max()} of type {dtype}, the first of "
            f"{name}, do not tell how many levels there are"
        )
    return 256


def _condition(dataset: Dataset, model: ModelConfig) -> Any:
    """Returns the labels or the condition of a set, as the model takes them; None for neither."""
    shape, kind = checks.condition_form(model, dataset.image_shape)
    if not kind:
        return None
    what, kinds = ("labels", "iu") if model.num_classes else ("condition", "biuf")
    array = getattr(dataset, what)
    if array is None or array.shape[1:] != shape or array.dtype.kind not in kinds:
        form = f"{what} {list(array.shape)} of {array.dtype}" if array is not None else f"no {what}"
        fields = ("num_classes", "condition_vector", "condition_map")
        field = next(field for field in fields if getattr(model, field))
        rows = ", ".join(map(str, ("N", *shape)))
        raise UserError(
            f"{dataset.name} has {form}, but model.{field} is {getattr(model, field)}: set it to "
            f"0, or give {kind} in an array `{what}` [{rows}] of an .npz file (`train_{what}` and "
            "so on, beside arrays of splits)"
        )
    return array


def _uniform(keys: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers in [0, 1), [B, *shape], one random stream for each key."""
    # NumPy promises never to change the raw output of a bit generator; distributions may change.
    raw = np.stack([np.random.PCG64(key).random_raw(math.prod(shape)) for key in keys])
    return ((raw >> 11) * 2.0**-53).reshape(-1, *shape)
