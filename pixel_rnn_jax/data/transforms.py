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
    fixed in evaluation. Of mirrored images, half are mirrored in training, others at each visit.

    Args:
        dataset: The stored images.
        model: What it is conditioned on, and its output: for "gaussian_mixture" all values are
            numbers as they are stored, without binarisation or noise.
        levels: K of the stored values; 0 takes it from the set, or from the type of its values.
        binarize: As `DataConfig` has it.
        flip: Whether images are mirrored in training.
        noise: Number of the draw of noise that is added to levels; None for none.
        class_names: Names of the model's classes, which may have other numbers in the set; None
            takes those of the set.

    Attributes:
        name: The split in error messages.
        image_shape: (H, W, C).
        levels: K of the images, after binarisation; 0 of real values.
        dtype: Of the images: `value_dtype(levels)`, or float32 with noise and of real values.
        class_names: The names of the classes of a model with classes; () if they have none.
        ids: `[N, 2]`, the identity of each image: see `Dataset`.
        file_names: The names of the images' files; () if they are rows of an array.

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
        self._condition, self.class_names = _condition(dataset, model), ()
        if model.num_classes:
            self.class_names = dataset.class_names if class_names is None else tuple(class_names)
            if len(self.class_names) > model.num_classes:
                raise UserError(
                    f"{self.name} has {len(self.class_names)} classes, but model.num_classes is "
                    f"{model.num_classes}: set it to their number"
                )
            if isinstance(self._condition, np.ndarray):  # All at once, where they are not on disk.
                self._labels(np.arange(len(self)))

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
        """Returns images as evaluation sees them, or with `positions`, as training.

        Args:
            indices: Numbers of images, [B].
            positions: Places in the stream of training images, [B], which with `seed` determine the
                draws.
            seed: The run's seed.
            known: Which values are checked, of a shape that broadcasts to `[B, H, W, C]`.

        Raises:
            UserError: A stored value is not below the number of levels, or a number is NaN or
                infinite; or a class is not one of the model's.
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
        """Returns images as they are stored, or as float32 where they are floats or real values."""
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
        if self._model.num_classes:
            return self._labels(indices)
        numbers = np.asarray(self._condition[indices])
        return self._finite(numbers, indices, True, "the condition of ")

    def _labels(self, indices: np.ndarray) -> np.ndarray:
        """Returns the model's numbers of the classes of images."""
        labels = stored = np.asarray(self._condition[indices])
        if self.dataset.class_names not in ((), self.class_names):
            stored = np.array(self.dataset.class_names)[labels]
            labels = number_labels(stored, self.class_names)
        count = self._model.num_classes  # Some sets of TFDS mark images without a label by -1.
        takes = f"the model takes classes from 0 to {count - 1} (model.num_classes)"
        self._refuse((labels < 0) | (labels >= count), stored, indices, takes, "the label of ")
        return labels.astype(np.int32)

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
    """Opens a split for the model of a run, with what the model is conditioned on.

    Args:
        config: The set and the model.
        split: "train", "validation" or "test" for `config.data.train_split` and so on, or a split
            of the set itself.
        noise: Number of the draw of noise that is added to levels. By default, none for a discrete
            model and draw 0 for a continuous one.

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
    the noise that evaluation adds, and floats as they are.

    Args:
        path: A folder of image files, an image file, or an .npy or .npz file.
        split: A subfolder, a key of an .npz file, or a part as `open_dataset` takes it; None for
            all images.
        model: The model.
        class_names: The names of its classes.

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
    """Makes training and validation images of arrays.

    Args:
        config: The model and the data. `data.levels` of 0 becomes the largest value + 1, and a
            model without a condition takes the one that there is.
        images: `[N, H, W]` or `[N, H, W, C]`: integers from 0 to K - 1, or real numbers.
        condition: `[N]` classes, as integers or names; `[N, D]` or `[N, H, W, D]` numbers; or None.
        validation: The share of the images that validates, drawn at random but the same each time;
            or images of their own, or a pair of images and their condition.

    Returns:
        The config, with a name for the arrays that a change of them changes; and the two splits.

    Raises:
        UserError: The arrays do not fit one another or the config.
    """
    images, condition = _checked("images", images, condition)
    class_names: tuple[str, ...] = ()
    if condition is not None and condition.dtype.kind == "U":
        class_names = tuple(np.unique(condition).tolist())
    if isinstance(validation, (int, float, np.number)):
        count = max(1, round(float(validation) * len(images)))
        if not 0 < validation < 1 or count == len(images):
            raise UserError(
                f"validation must be a share between 0 and 1 that leaves images to train on, got "
                f"{validation} of {len(images)} images"
            )
        held_out = np.sort(random_order(len(images))[:count])
        kept = np.setdiff1d(np.arange(len(images)), held_out)
        parts = [
            (images[rows], None if condition is None else condition[rows])
            for rows in (kept, held_out)
        ]
    else:
        pair = validation if isinstance(validation, tuple) else (validation, None)
        parts = [(images, condition), _checked("validation", *pair)]
    if class_names:
        parts = [
            (array, None if names is None else number_labels(names, class_names))
            for array, names in parts
        ]
    config = _config_of_arrays(config, condition, class_names, parts)
    train, held_out = (
        _with_config(_array_dataset(name, *part, class_names), config)
        for name, part in zip(("training", "validation"), parts, strict=True)
    )
    return config, train, held_out


def _checked(name: str, images: Any, condition: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns images `[N, H, W, C]` and a condition of numbers or text with N rows, or None."""
    images = as_images(np.asarray(images), name)
    if condition is None:
        return images, None
    condition = np.atleast_1d(np.asarray(condition))
    if condition.dtype.kind == "O" and all(isinstance(name, str) for name in condition.flat):
        condition = condition.astype(str)  # As pandas keeps text.
    if condition.dtype.kind not in "biufU" or len(condition) != len(images):
        raise UserError(
            f"condition must hold numbers or names for the {len(images)} images of {name}, got "
            f"shape {list(condition.shape)} of {condition.dtype}"
        )
    return images, condition


def _config_of_arrays(
    config: Config,
    condition: np.ndarray | None,
    class_names: Sequence[str],
    parts: Sequence[tuple[np.ndarray, np.ndarray | None]],
) -> Config:
    """Returns the config with the condition, the levels and the name of arrays."""
    model, levels = config.model, config.data.levels
    if condition is not None and not checks.condition_form(model, parts[0][0].shape[1:])[1]:
        field, size = {2: "condition_vector", 4: "condition_map"}.get(condition.ndim), 0
        if field is None:
            field, size = "num_classes", max(2, len(class_names) or int(condition.max()) + 1)
        model = dataclasses.replace(model, **{field: size or condition.shape[-1]})
    integers = [images for images, _ in parts if images.dtype.kind in "biu"]
    if not levels and model.output != "gaussian_mixture" and integers:
        # Of all images, as a value may be in those alone that validate.
        levels = max(2, *(int(images.max()) + 1 for images in integers))
    digest = 0
    for array in (array for part in parts for array in part if array is not None):
        digest = zlib.crc32(np.ascontiguousarray(array).view(np.uint8), digest)
    name = f"arrays in memory {digest:08x}"
    data = dataclasses.replace(config.data, name=name, levels=levels)
    return dataclasses.replace(config, model=model, data=data)


def _array_dataset(
    name: str, images: np.ndarray, condition: np.ndarray | None, class_names: tuple[str, ...]
) -> Dataset:
    classes = condition is not None and condition.ndim == 1
    return Dataset(
        name=f"the {name} set",
        images=images,
        ids=image_ids(name, np.arange(len(images))),
        labels=condition if classes else None,
        class_names=class_names,
        condition=None if classes else condition,
    )


def _with_config(dataset: Dataset, config: Config, noise: int | None = None) -> Split:
    data, model = config.data, config.model
    if noise is None and model.output == "logistic_mixture":
        noise = 0
    options = {"levels": data.levels, "binarize": data.binarize, "flip": data.flip}
    return Split(dataset, model, noise=noise, **options)


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
    if known := levels or dataset.levels:
        return known
    if dtype.name not in ("bool", "uint8"):
        raise UserError(f"data.levels must be set: {dtype} in {name} does not tell how many levels")
    if dtype.kind == "b":
        return 2
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
