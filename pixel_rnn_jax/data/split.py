"""A split as a model sees it: checked, binarised, dequantised or mirrored, and conditioned."""

import copy
import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from numpy.typing import ArrayLike

from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.data.dataset import (
    Batch,
    Crops,
    Dataset,
    ImageFormat,
    LazyArray,
    cut,
    squares,
    stacked,
)
from pixel_rnn_jax.data.open import open_path
from pixel_rnn_jax.model import checks, likelihoods
from pixel_rnn_jax.model.config import ModelConfig, check
from pixel_rnn_jax.model.likelihoods import value_dtype
from pixel_rnn_jax.model.parts import Part, grids
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import terminal
from pixel_rnn_jax.system.errors import UserError

# The first number of a random key: binarisation by image, by position in training, and noise.
_BY_IMAGE, _BY_POSITION, _NOISE = 0, 1, 2
# The last number of the key that decides whether an image is mirrored, and where it is cut.
_MIRROR, _CROP = 1, 2
_BLACK_AND_WHITE = "0 and 255 are taken as the levels 0 and 1"


class Split:
    """The images of one split for a model, read by their numbers.

    Binarisation makes a value v of K stored levels 1 with probability v / (K - 1). A density of
    levels gets uniform noise in [0, 1). "dynamic" binarisation and noise are drawn anew at each
    visit in training. "fixed" binarisation, and all in evaluation, are drawn once, by image id.

    Type and noise follow `model.output`; `model.condition` chooses labels or `condition`.
    Only levels (0: the set's, or 256), crop, binarize and flip are read from `data`.

    `levels` is K after binarisation; `class_names` is () for a model without classes;
    `black_and_white` says that the two levels are stored as 0 and 255.
    """

    def __init__(self, dataset: Dataset, model: ModelConfig, data: DataConfig):
        self._model, self._data = model, data
        dataset = squares(dataset, data.crop) if data.crop else dataset
        self._set(dataset)
        self.class_names = dataset.class_names if model.condition.classes else ()
        self._stored_levels = _stored_levels(dataset, model, data)
        likelihood = likelihoods.likelihood_class(model)
        for field in ("levels", "binarize") if likelihood.standardised else ():
            is_default = getattr(data, field) == getattr(DataConfig, field)
            check(data, f"data.{field}", f"keep its default for {model.output}", is_default)
        self.black_and_white = self._stored_levels == 2 and _black_and_white(dataset)
        self._noisy = likelihood.dequantised
        self.levels = self._stored_levels if data.binarize == "none" else 2
        self._dtype = value_dtype(self.levels) if likelihood.discrete else np.dtype(np.float32)

    def _set(self, dataset: Dataset) -> None:
        self.dataset, self.image_shape, self.ids = dataset, dataset.image_shape, dataset.ids
        self.file_names, self._condition = dataset.file_names, _condition(dataset, self._model)

    def parts(self, side: int, stride: int) -> Iterator[tuple[list[Part], "Split"]]:
        """Yields the `grids` of the images: the parts of one shape, and a split of them."""
        for shape, places in grids(self.dataset.sizes, side, stride).items():
            part = self
            if len(places) != len(self) or {shape} != {*self.dataset.sizes}:
                part = copy.copy(self)
                part._set(cut(self.dataset, places))
            yield places, part

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def format(self) -> ImageFormat:
        """The format of the images, without what standardises them."""
        return ImageFormat(self.image_shape, self.levels, class_names=self.class_names)

    def batch(
        self, indices: ArrayLike, positions: Sequence[int] | None = None, seed: int = 0
    ) -> Batch:
        """Returns the images `indices` [B]; in training `positions` [B] in the stream are given."""
        indices, binarize = np.asarray(indices), self._data.binarize
        visits = by_image = [(_BY_IMAGE, *id_) for id_ in self.ids[indices].tolist()]
        places = None
        if positions is not None:
            visits = [(_BY_POSITION, seed, position) for position in positions]
            if self._data.crop:
                places = _uniform([(*visit, _CROP) for visit in visits], (2,))
        images = _rows(self.dataset.images, indices, places)
        if self.black_and_white:
            grey = (images != 0) & (images != 255)
            self._refuse(grey, images, indices, "", "value {}, amid images of 0 and 255 alone")
            images = images // 255
        images = self._checked(images, indices, "", self._stored_levels, "data.levels")
        if binarize != "none":
            keys = visits if binarize == "dynamic" else by_image
            images = images / (self._stored_levels - 1) > _uniform(keys, images.shape[1:])
        images = images.astype(self._dtype, copy=False)
        if total := self._model.total:
            sums = images.sum(axis=(1, 2, 3), dtype=np.int64)
            self._refuse(sums != total, sums, indices, "", f"sum {{}}, not model.total={total}")
        if self._noisy:
            noise = _uniform([(_NOISE, *visit) for visit in visits], images.shape[1:])
            # Rounding to float32 may reach the next level.
            next_level = np.nextafter(images + 1, images)
            images = np.minimum((images + noise).astype(np.float32), next_level)
        if self._data.flip and positions is not None:
            mirrored = _uniform([(*visit, _MIRROR) for visit in visits], (1, 1, 1)) < 0.5
            images = np.where(mirrored, images[:, :, ::-1], images)
        return Batch(images, self._condition_of(indices, places))

    def remarks(self) -> Iterator[str]:
        """Yields what a training should say of its images."""
        labels = self.dataset.labels
        if labels is not None and not self._model.condition.classes:
            whole = isinstance(labels, np.ndarray)
            count = len(self.dataset.class_names) or (int(labels.max()) + 1 if whole else "N")
            yield f"{count} classes, not used: --config.model.num_classes={count}"
        if self.black_and_white:
            yield _BLACK_AND_WHITE
        if self._stored_levels == 256 and _black_and_white(self.dataset):
            yield "values 0 and 255 alone, of 256 levels: data.levels=2 takes them as 0 and 1"

    def _condition_of(self, indices: np.ndarray, places: np.ndarray | None) -> np.ndarray | None:
        if self._condition is None:
            return None
        rows = _rows(self._condition, indices, places)
        if classes := self._model.condition.classes:
            # Sets of TFDS may have -1 for no label.
            self._checked(rows, indices, "the label of ", classes, "model.num_classes")
            return rows.astype(np.int32)
        return self._checked(rows, indices, "the condition of ")

    def _checked(
        self, numbers: np.ndarray, indices: np.ndarray, what: str, count: int = 0, field: str = ""
    ) -> np.ndarray:
        """Returns integers from 0 to `count` - 1; with 0 finite numbers, as float32."""
        stored = numbers
        if count:
            wrong, rule = (numbers < 0) | (numbers >= count), f"0 to {count - 1} ({field})"
        else:
            with np.errstate(over="ignore"):
                numbers = numbers.astype(np.float32, copy=False)
            wrong, rule = ~np.isfinite(numbers), "finite numbers of type float32"
        self._refuse(wrong, stored, indices, what, f"value {{}}, not one of {rule}")
        return numbers

    def _refuse(
        self, wrong: np.ndarray, stored: np.ndarray, indices: np.ndarray, what: str, rule: str
    ) -> None:
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            name, index = self.dataset.name, indices[first[0]]
            image = self.file_names[index] if self.file_names else f"image {self.ids[index, 1]}"
            raise UserError(f"{what}{image} of {name} has the {rule.format(stored[first])}")


def own_images(
    path: epath.PathLike,
    split: str | None,
    model: PixelRNN,
    class_names: Sequence[str] = (),
    classify: Callable[[Any], np.ndarray] | None = None,
) -> Split:
    """Opens a user's own images for a trained model, as they are stored, without binarisation.

    `class_names` are the model's; the file may number them otherwise. `classify` gives images
    without classes their classes, by number or by name.
    """
    dataset = open_path(Path(path).expanduser(), repr(str(path)), split)
    sizes, channels, found = dataset.sizes, model.image_shape[-1], dataset.image_shape[-1]
    if (channels, found) == (1, 3):
        rgb, names = dataset.images, dataset.names()
        read = lambda rows: (_grey(rgb[row], names[row]) for row in rows)  # noqa: E731
        dataset = dataclasses.replace(dataset, images=LazyArray(read, names, lambda: sizes))
        terminal.log(f"{dataset.name}: RGB of three equal channels is taken as grey")
    elif found != channels:
        raise UserError(f"{dataset.name} has {found} channels, the model takes {channels}")
    if (other := {*sizes}) != {model.image_shape[:2]}:
        shape = "{}x{}".format(*min(other)) if len(other) == 1 else f"{len(other)} sizes"
        trained = "{}x{}".format(*model.image_shape)
        terminal.log(f"{dataset.name}: images of {shape}, the model was trained on {trained}")
    levels = DataConfig(levels=model.levels)
    if model.config.condition.classes and dataset.labels is None and classify:
        plain = Split(dataset, dataclasses.replace(model.config, num_classes=0), levels)
        images = [plain.batch([i]).images[0] for i in range(len(plain))]
        labels = classify(stacked(images, (), images[0].dtype))
        dataset = dataclasses.replace(dataset, labels=labels)
    if model.config.condition.classes and dataset.class_names:
        names = np.array(dataset.class_names)[dataset.labels]
        labels = checks.class_numbers(names, class_names)
        dataset = dataclasses.replace(dataset, labels=labels, class_names=tuple(class_names))
    own = Split(dataset, model.config, levels)
    if own.black_and_white:
        terminal.log(f"{own.dataset.name}: {_BLACK_AND_WHITE}")
    return own


def _grey(image: np.ndarray, name: str) -> np.ndarray:
    if (image != image[..., :1]).any():
        raise UserError(f"{name} has colours, and the model takes grey")
    return image[..., :1]


def _black_and_white(dataset: Dataset) -> bool:
    """Whether the first images are bytes 255, and perhaps 0, alone."""
    first = _first(dataset)
    return first.dtype == np.uint8 and np.unique(first).tolist() in ([0, 255], [255])


def _stored_levels(dataset: Dataset, model: ModelConfig, data: DataConfig) -> int:
    """Returns K of the stored values; 0 for a model of real values."""
    name, dtype = dataset.name, dataset.images.dtype
    if likelihoods.likelihood_class(model).standardised:
        return 0
    if dtype.kind == "f" or (dtype.kind == "b" and data.levels > 2):
        most = data.levels - 1 if data.levels else "K - 1"
        rule = f"model.output={model.output} takes integers from 0 to {most}"
        way = "convert them, or set model.output=gaussian_mixture"
        raise UserError(f"{name} has values of type {dtype}, but {rule}: {way}")
    if known := data.levels or dataset.levels or 2 * (dtype.kind == "b"):
        return known
    seen = dataset.images if isinstance(dataset.images, np.ndarray) else _first(dataset)
    if dtype != np.uint8 or seen.max() == 1:
        found = f"of type {dtype}: the first images have {seen.min()} to {seen.max()}"
        raise UserError(f"data.levels must be K, as values of {name} are from 0 to K - 1, {found}")
    return 256


def _rows(array: Any, indices: np.ndarray, places: np.ndarray | None) -> np.ndarray:
    moves = places is not None and isinstance(array, Crops)
    return array.moved(indices, places) if moves else np.asarray(array[indices])


def _first(dataset: Dataset) -> np.ndarray:
    """Returns the values of the first images, of which reading takes no time."""
    rows, images = np.arange(min(len(dataset), 64)), dataset.images
    first = images.rows(rows) if isinstance(images, LazyArray) else images[rows]
    return np.concatenate([*map(np.ravel, first)])


def _condition(dataset: Dataset, model: ModelConfig) -> Any:
    form, shape = model.condition, model.condition.shape(dataset.image_shape)
    if not form.size:
        return None
    what, types = ("labels", "iu") if form.classes else ("condition", "biuf")
    array = getattr(dataset, what)
    if array is None or array.shape[1:] != shape or array.dtype.kind not in types:
        found = "no" if array is None else f"{list(array.shape)} of {array.dtype} as"
        rows = ", ".join(map(str, ("N", *shape)))
        rule = f"{form} takes {'integers' if form.classes else 'numbers'} [{rows}]"
        raise UserError(f"{dataset.name} has {found} `{what}` or `train_{what}`: {rule}")
    return array


def _uniform(keys: Sequence[tuple[int, ...]], shape: tuple[int, ...]) -> np.ndarray:
    """Returns numbers in [0, 1), [B, *shape], one random stream for each key."""
    # NumPy promises never to change the raw output of a bit generator; distributions may change.
    raw = np.stack([np.random.PCG64(key).random_raw(math.prod(shape)) for key in keys])
    return ((raw >> 11) * 2.0**-53).reshape(-1, *shape)
