"""A split as a model sees it: checked, binarised, dequantised or mirrored, and conditioned."""

import dataclasses
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from etils import epath

from pixel_rnn_jax.config import Config, ModelConfig
from pixel_rnn_jax.data.dataset import (
    SPLITS,
    Batch,
    Dataset,
    image_ids,
    number_labels,
    random_order,
    value_dtype,
)
from pixel_rnn_jax.data.files import as_images, open_dataset, open_path
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import checks

if TYPE_CHECKING:
    from pixel_rnn_jax.pixel_rnn import PixelRNN

FIRST = 64
"""Images that are looked at for what their values can mean."""
# The first number of a random key: binarisation by image, by position in training, and for draw n
# of noise, _NOISE + n.
_BY_IMAGE, _BY_POSITION, _NOISE = 0, 1, 2
_MIRROR = 1  # The last number of the key that decides whether an image is mirrored.

Key = tuple[int, ...]


class Split:
    """The images of one split for a model, read by their numbers.

    Binarisation makes a value v of K stored levels 1 with probability p = v / (K - 1). "dynamic"
    draws anew at each visit in training. "fixed" draws once for each image, by where it is stored,
    whatever the seed and the part of the set; evaluation with "dynamic" uses this draw too.
    "threshold" gives 1 where p > 1/2. Noise is uniform in [0, 1): new at each visit in training,
    fixed in evaluation.

    Args:
        dataset: The stored images.
        model: Its condition and its output are used. For "gaussian_mixture" all values are numbers
            as they are stored, without binarisation or noise.
        levels: K of the stored values; 0 takes it from the set, or from the type of its values.
        binarize: See `DataConfig`, as for `flip`.
        flip: Whether images are mirrored at random in training.
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
        *,
        levels: int = 0,
        binarize: str = "none",
        flip: bool = False,
        noise: int | None = None,
        class_names: Sequence[str] | None = None,
    ):
        self.dataset, self.name, self.image_shape = dataset, dataset.name, dataset.image_shape
        self.ids, self.file_names = dataset.ids, dataset.file_names
        self._model, self._binarize, self._flip = model, binarize, flip
        self._stored_levels = _stored_levels(dataset, model, levels, binarize, noise)
        floats = dataset.images.dtype.kind == "f"
        self._noise = noise if self._stored_levels else None
        self.levels = self._stored_levels if binarize == "none" else 2
        is_level = self._stored_levels and not floats and noise is None
        self.dtype = value_dtype(self.levels) if is_level else np.dtype(np.float32)
        self._condition = _condition(dataset, model)
        self.class_names: tuple[str, ...] = ()
        if model.num_classes:
            self.class_names = dataset.class_names if class_names is None else tuple(class_names)
            if len(self.class_names) > model.num_classes:
                raise UserError(
                    f"{self.name} has {len(self.class_names)} classes, but model.num_classes is "
                    f"{model.num_classes}: set it to their number"
                )
            if isinstance(self._condition, np.ndarray):  # All at once, where they are not on disk.
                self._condition_of(np.arange(len(self)))

    def __len__(self) -> int:
        return len(self.dataset)

    def names(self) -> list[str]:
        """Returns the names of all images: those of their files, or their rows in the array."""
        return self.dataset.names()

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
        indices = np.asarray(indices)
        images = self._stored(indices, known)
        draws = self._binarize in ("fixed", "dynamic") or self._noise is not None
        ids = self.ids[indices].tolist() if draws else []
        visits = by_image = [(_BY_IMAGE, *id_) for id_ in ids]
        if positions is not None:
            visits = [(_BY_POSITION, seed, position) for position in positions]
        if self._binarize != "none":
            chances = images / (self._stored_levels - 1)
            keys = visits if self._binarize == "dynamic" else by_image
            threshold = self._binarize == "threshold"
            images = chances > (0.5 if threshold else _uniform(keys, self.image_shape))
        images = images.astype(self.dtype, copy=False)
        if self._noise is not None:
            images = _add_noise(images, visits, self._noise)
        if self._flip and positions is not None:
            mirrored = _uniform([(*visit, _MIRROR) for visit in visits], (1, 1, 1)) < 0.5
            images = np.where(mirrored, images[:, :, ::-1], images)
        return Batch(images, self._condition_of(indices))

    def _stored(self, indices: np.ndarray, known: np.ndarray | bool) -> np.ndarray:
        """Returns images as they are stored; floats and real values as float32."""
        images, levels = np.asarray(self.dataset.images[indices]), self._stored_levels
        if not levels or images.dtype.kind == "f":
            return self._finite(images, indices, known, "")
        if images.max() >= levels or images.min() < 0:
            wrong = ((images < 0) | (images >= levels)) & known
            self._refuse(wrong, images, indices, f"values must be 0 to {levels - 1} (data.levels)")
        return images

    def _condition_of(self, indices: np.ndarray) -> np.ndarray | None:
        if self._condition is None:
            return None
        numbers = stored = np.asarray(self._condition[indices])
        if not (count := self._model.num_classes):
            return self._finite(stored, indices, True, "the condition of ")
        if self.dataset.class_names not in ((), self.class_names):
            stored = np.array(self.dataset.class_names)[stored]
            numbers = number_labels(stored, self.class_names)
        wrong = (numbers < 0) | (numbers >= count)  # Sets of TFDS may have -1 for no label.
        takes = f"the model takes classes from 0 to {count - 1} (model.num_classes)"
        self._refuse(wrong, stored, indices, takes, "the label of ")
        return numbers.astype(np.int32)

    def _finite(
        self, values: np.ndarray, indices: np.ndarray, known: np.ndarray | bool, what: str
    ) -> np.ndarray:
        with np.errstate(over="ignore"):
            numbers = values.astype(np.float32, copy=False)
        takes = "values must be finite numbers of type float32"
        self._refuse(~np.isfinite(numbers) & known, values, indices, takes, what)
        return numbers

    def _refuse(
        self, wrong: np.ndarray, values: np.ndarray, indices: np.ndarray, takes: str, what: str = ""
    ) -> None:
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            name = self.dataset.describe(indices[first[0]])
            raise UserError(f"{what}{name} has the value {values[first]}: {takes}")


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
    return _with_config(open_dataset(config.data, split), config, noise)


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
            f"{dataset.describe(0)} has shape {list(dataset.image_shape)}, the model takes "
            f"{list(model.image_shape)}"
        )
    floats = dataset.images.dtype.kind == "f"
    noise = 0 if model.config.output == "logistic_mixture" and not floats else None
    return Split(dataset, model.config, levels=model.levels, noise=noise, class_names=class_names)


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
    whole = train = _array_dataset("training", images, condition)
    if isinstance(validation, (int, float, np.number)):
        count = max(1, round(float(validation) * len(whole)))
        if not 0 < validation < 1 or count == len(whole):
            raise UserError(
                "validation must be a share between 0 and 1 that leaves images to train on, got "
                f"{validation} of {len(whole)} images"
            )
        order = random_order(len(whole))
        held_out = _named("validation", whole.part(np.sort(order[:count])))
        train = _named("training", whole.part(np.sort(order[count:])))
    else:
        other, of_other = validation if isinstance(validation, tuple) else (validation, None)
        held_out = _array_dataset("validation", other, of_other, whole.class_names)
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
    config = dataclasses.replace(config, model=model, data=data)
    return config, _with_config(train, config), _with_config(held_out, config)


def _array_dataset(
    name: str, images: Any, condition: Any, class_names: tuple[str, ...] = ()
) -> Dataset:
    images, labels = as_images(np.asarray(images), f"{name} images"), None
    if condition is not None:
        condition = np.atleast_1d(np.asarray(condition))
        if condition.dtype.kind == "O" and all(isinstance(each, str) for each in condition.flat):
            condition = condition.astype(str)  # As pandas keeps text.
        kinds = "biufU" if condition.ndim == 1 else "biuf"
        if condition.dtype.kind not in kinds or len(condition) != len(images):
            raise UserError(
                f"condition must hold numbers or names for the {len(images)} {name} images, got "
                f"shape {list(condition.shape)} of {condition.dtype}"
            )
        if condition.dtype.kind == "U":
            class_names = class_names or tuple(np.unique(condition).tolist())
            condition = number_labels(condition, class_names)
        if condition.ndim == 1:
            labels, condition = condition, None
    whole = Dataset(name, images, np.empty(len(images)), None, labels, class_names, condition)
    return _named(name, whole)


def _named(name: str, dataset: Dataset) -> Dataset:
    ids = image_ids(name, np.arange(len(dataset)))
    return dataclasses.replace(dataset, name=f"the {name} set", ids=ids)


def _with_config(dataset: Dataset, config: Config, noise: int | None = None) -> Split:
    data, model = config.data, config.model
    if noise is None and model.output == "logistic_mixture":
        noise = 0
    return Split(
        dataset, model, levels=data.levels, binarize=data.binarize, flip=data.flip, noise=noise
    )


def _stored_levels(
    dataset: Dataset, model: ModelConfig, levels: int, binarize: str, noise: int | None
) -> int:
    """Returns K of the stored values; 0 for a model of real values."""
    name, dtype = dataset.name, dataset.images.dtype
    if model.output == "gaussian_mixture":
        if levels or binarize != "none":
            raise UserError(
                'model.output "gaussian_mixture" takes values as they are: data.levels must be 0 '
                f'and data.binarize "none", got {levels} and "{binarize}"'
            )
        return 0
    if dtype.kind == "f" and (model.discrete or noise is not None):
        raise UserError(
            f'{name} has values of type {dtype}, but model.output "{model.output}" takes integers '
            "from 0 to K-1: turn the values into levels, for example np.round(255 * "
            "x).astype(np.uint8), or set model.output=gaussian_mixture"
        )
    if dtype.kind == "b" and levels > 2:
        raise UserError(f"{name} has the values 0 and 1, not {levels} levels: convert the images")
    if known := levels or dataset.levels or (2 if dtype.kind == "b" else 0):
        return known
    if dtype != np.uint8:
        raise UserError(f"data.levels must be set: {dtype} in {name} does not tell how many levels")
    if np.max(dataset.images[np.arange(min(len(dataset), FIRST))]) == 1:
        raise UserError(
            f"{name} has the values 0 and 1 in its first images, but the type uint8 stands for 256 "
            "levels: set data.levels=2, or 256 if others have more"
        )
    return 256


def _condition(dataset: Dataset, model: ModelConfig) -> Any:
    """Returns the labels or the condition of a set, as the model takes them; None for neither."""
    shape, kind = checks.condition_form(model, dataset.image_shape)
    if not kind:
        return None
    what = "labels" if model.num_classes else "condition"
    fields = ("num_classes", "condition_vector", "condition_map")
    field = next(field for field in fields if getattr(model, field))
    rows = f"[N, {', '.join(map(str, shape))}]" if shape else "[N]"
    takes = f"model.{field} is {getattr(model, field)}, which takes {kind}, of shape {rows}"
    array = getattr(dataset, what)
    if array is None:
        raise UserError(
            f"{dataset.name} has no {what}, but {takes}: set it to 0, or choose an .npz file with "
            f"an array `{what}` (beside arrays of splits, `train_{what}` and so on)"
        )
    if array.shape[1:] != shape or array.dtype.kind not in ("iu" if model.num_classes else "biuf"):
        raise UserError(
            f"the {what} of {dataset.name} have shape {list(array.shape)} of {array.dtype}, but "
            f"{takes}"
        )
    return array


def _add_noise(images: np.ndarray, visits: Sequence[Key], draw: int) -> np.ndarray:
    """Returns levels `[B, H, W, C]` of float32 with uniform noise: draw `draw` of each visit."""
    keys = [(_NOISE + draw, *visit) for visit in visits]
    noisy = (images + _uniform(keys, images.shape[1:])).astype(images.dtype)
    # Rounding to float32 may reach the next level.
    return np.minimum(noisy, np.nextafter(images + 1, images))


def _uniform(keys: Sequence[Key], shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers in [0, 1), [B, *shape], one random stream for each key."""
    # NumPy promises never to change the raw output of a bit generator; distributions may change.
    raw = np.stack([np.random.PCG64(key).random_raw(math.prod(shape)) for key in keys])
    return ((raw >> 11) * 2.0**-53).reshape(-1, *shape)
