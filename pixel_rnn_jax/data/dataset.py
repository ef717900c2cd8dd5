"""Stored images: their one type, the identity of each, and how a set is divided into splits."""

import dataclasses
import functools
import itertools
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pixel_rnn_jax.model import checks
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.parts import Part
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system.errors import UserError

SPLITS = ("train", "validation", "test")
CACHE_BYTES = 2**30
"""Images of a split are kept in memory once read, as many as need no more."""


class Batch(NamedTuple):
    """Images and condition as a model takes them (see `PixelRNN`), NumPy's or JAX's arrays."""

    images: Any
    condition: Any = None


class Images(NamedTuple):
    """Images as a model takes them, `[N, H, W, C]` or a list of several sizes, and names.

    The condition is classes `[N]`, by number or by name, vectors `[N, D]` or maps `[N, H, W, D]`.
    The names are N names of files relative to their folder, or rows in an array.

    >>> prnn.Images(np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 0])).condition.shape
    (3,)
    """

    images: Any
    condition: Any = None
    names: Sequence[str] = ()


@dataclass(frozen=True)
class ImageFormat:
    """The images of a data set, as a model sees them; the fields are `PixelRNN`'s.

    `class_names` is () without classes or names. Equality ignores `mean` and `std`.
    """

    image_shape: tuple[int, int, int]
    levels: int
    mean: tuple[float, ...] = dataclasses.field(default=(), compare=False)
    std: tuple[float, ...] = dataclasses.field(default=(), compare=False)
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ImageFormat":
        """Returns the format whose `dataclasses.asdict` went through JSON."""
        tuples = {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
        return cls(**values | tuples)

    def model(self, config: ModelConfig) -> PixelRNN:
        """Returns the model of such images."""
        return PixelRNN(config, self.image_shape, self.levels, self.mean, self.std)


class LazyArray:
    """Reads rows on demand, and keeps those that it has read in at most `CACHE_BYTES`.

    `read` yields rows by their numbers; `names` has the names of all rows, for errors. Images may
    differ in size if `sizes` returns all their (H, W), without reading them.
    """

    def __init__(
        self,
        read: Callable[[np.ndarray], Iterable[Any]],
        names: Sequence[Any],
        sizes: Callable[[], list[tuple[int, int]]] | None = None,
    ):
        self._read, self._names, self._sizes = read, names, sizes
        self._kept, self._room = dict[int, np.ndarray](), CACHE_BYTES
        first = np.asarray(next(iter(read(np.arange(1)))))
        self.shape, self.dtype = (len(names), *first.shape), first.dtype

    @functools.cached_property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of all images."""
        return self._sizes() if self._sizes else [self.shape[1:3]] * len(self._names)

    def __getitem__(self, index: Any) -> np.ndarray:
        """Returns a row, or rows of one shape as one array."""
        rows = self.rows(np.atleast_1d(index))
        for number, row in zip(np.atleast_1d(index), rows, strict=True):
            self._check(number, row.shape == rows[0].shape)
        return np.stack(rows) if np.ndim(index) else rows[0]

    def rows(self, indices: np.ndarray) -> list[np.ndarray]:
        """Returns rows, which may differ in size."""
        missing = np.array([i for i in np.unique(indices) if i not in self._kept], int)
        read = map(np.asarray, self._read(missing)) if missing.size else ()
        rows = dict(zip(missing.tolist(), read, strict=True))
        for number, row in rows.items():
            same = 2 * (self._sizes is not None)  # The first axis that all have in common.
            form = row.ndim, row.shape[same:], row.dtype
            self._check(number, form == (len(self.shape) - 1, self.shape[1 + same :], self.dtype))
            if row.nbytes <= self._room:
                self._room -= row.nbytes
                self._kept[number] = row
        return [rows[i] if i in rows else self._kept[i] for i in indices.tolist()]

    def part(self, rows: np.ndarray) -> "LazyArray":
        """Returns an array of the rows `rows`."""
        sizes = (lambda: [self.sizes[i] for i in rows]) if self._sizes else None
        names = [self._names[i] for i in rows]
        return LazyArray(lambda indices: self._read(rows[indices]), names, sizes)

    def _check(self, number: int, is_good: bool) -> None:
        if not is_good:
            first, row = (np.asarray(next(iter(self._read(np.array([i]))))) for i in (0, number))
            found = f"has shape {list(row.shape)} of {row.dtype}"
            other = f"{self._names[0]} {list(first.shape)} of {first.dtype}"
            raise UserError(f"{self._names[number]} {found}, but {other}")


class Crops:
    """Parts, all of one shape, of the rows `[H, W, ...]` of an array."""

    def __init__(self, array: Any, places: Sequence[Part]):
        self._array, self._places, self.dtype = array, places, array.dtype
        self.shape = len(places), places[0].height, places[0].width, *array.shape[3:]

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        places = [self._places[i] for i in indices]
        rows = {picture: self._array[picture] for picture in {place.picture for place in places}}
        return np.stack([place.of(rows[place.picture]) for place in places])

    def moved(self, indices: np.ndarray, shares: np.ndarray) -> np.ndarray:
        """Returns parts at other places in the same rows, by `shares` `[B, 2]` in [0, 1)."""
        parts = []
        for index, share in zip(indices, shares, strict=True):
            row = self._array[self._places[index].picture]
            top, left = np.floor(share * (np.array(row.shape[:2]) - self.shape[1:3] + 1)).astype(
                int
            )
            parts.append(row[top : top + self.shape[1], left : left + self.shape[2]])
        return np.stack(parts)


@dataclass(frozen=True)
class Dataset:
    """The images of one split as they are stored; the arrays are NumPy's, or `LazyArray`s.

    Attributes:
        name: The split in error messages.
        images: `[N, H, W, C]` integers, booleans or floats; of `[N, H, W]` C is 1.
        ids: `[N, 2]` integers, a stable id of each image: image 0 of "train[50000:]" has the id of
            image 50,000 of "train". Parts have `[N, 4]`, with their first row and column.
        levels: K, if the set declares it.
        labels: `[N]` numbers of classes, negative for none, also given as names.
        class_names: The names of the classes 0, 1, ...; () takes the labels, if they are names.
        condition: `[N, D]` vectors or `[N, H, W, D]` maps.
        file_names: `[N]` strings, names of the files; () where rows of an array name the images.
    """

    name: str
    images: Any
    ids: np.ndarray
    levels: int | None = None
    labels: Any = None
    class_names: tuple[str, ...] = ()
    condition: Any = None
    file_names: Sequence[str] = ()

    def __post_init__(self) -> None:
        shape, dtype = list(self.images.shape), self.images.dtype
        if len(shape) not in (3, 4) or 0 in shape or dtype.kind not in "biuf":
            form = "numbers of shape [N, H, W] or [N, H, W, C]"
            raise UserError(f"{self.name} must hold {form}, got {shape} of {dtype}")
        for field in ("labels", "condition"):
            array = getattr(self, field)
            if array is not None and array.shape[:1] != (len(self),):
                shapes = f"{len(self)} images, but `{field}` of shape {list(array.shape)}"
                raise UserError(f"{self.name} has {shapes}")
        # Still part of the construction of the frozen dataclass.
        if len(shape) == 3:
            object.__setattr__(self, "images", self.images[..., None])
        if isinstance(self.images, np.memmap) and self.images.nbytes > CACHE_BYTES:
            object.__setattr__(self, "images", LazyArray(self.images.__getitem__, range(len(self))))
        if self.labels is not None and self.labels.dtype.kind == "U":
            class_names = self.class_names or tuple(np.unique(self.labels).tolist())
            object.__setattr__(self, "labels", checks.class_numbers(self.labels, class_names))
            object.__setattr__(self, "class_names", class_names)

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C), of the first image if images differ in size."""
        return tuple(self.images.shape[1:])

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(H, W) of all images."""
        return getattr(self.images, "sizes", None) or [self.image_shape[:2]] * len(self)

    def names(self) -> list[str]:
        """Returns the names of all images: of their files, or their rows in the array."""
        return list(self.file_names) or self.ids[:, 1].astype(str).tolist()

    def part(self, rows: np.ndarray) -> "Dataset":
        """Returns the images `rows`."""
        parts: dict[str, Any] = {
            field: _rows(array, rows)
            for field in ("images", "ids", "labels", "condition")
            if (array := getattr(self, field)) is not None
        }
        file_names = [self.file_names[row] for row in rows] if self.file_names else ()
        return dataclasses.replace(self, file_names=file_names, **parts)


def cut(dataset: Dataset, places: Sequence[Part]) -> Dataset:
    """Returns parts of pictures, all of one shape, as the images of a set."""
    pictures = np.array([place.picture for place in places])
    names, condition = dataset.names(), dataset.condition
    if condition is not None:
        condition = Crops(condition, places) if condition.ndim > 2 else condition[pictures]
    return dataclasses.replace(
        dataset,
        images=Crops(dataset.images, places),
        ids=np.concatenate([dataset.ids[pictures], [place[1:3] for place in places]], axis=1),
        labels=None if dataset.labels is None else _rows(dataset.labels, pictures),
        condition=condition,
        file_names=[f"{names[place.picture]}/{place.top}-{place.left}" for place in places],
    )


def squares(dataset: Dataset, side: int) -> Dataset:
    """Cuts pictures into squares; what remains on the right and below is left out."""
    places = [
        Part(picture, top, left, side, side)
        for picture, (height, width) in enumerate(dataset.sizes)
        for top in range(0, height - side + 1, side)
        for left in range(0, width - side + 1, side)
    ]
    if not places:
        raise UserError(f"{dataset.name} has no picture of at least {side}x{side} (data.crop)")
    return cut(dataset, places)


def stacked(arrays: Sequence[np.ndarray], shape: tuple[int, ...], dtype: Any) -> Any:
    """Returns arrays as one `[N, ...]` if they are of one shape, or a list; none have `shape`."""
    if len({np.shape(array) for array in arrays}) > 1:
        return list(arrays)
    return np.stack(arrays) if len(arrays) else np.zeros((0, *shape), dtype)


def _rows(array: Any, rows: np.ndarray) -> Any:
    return array.part(rows) if isinstance(array, LazyArray) else array[rows]


def image_ids(container: str, rows: Any) -> np.ndarray:
    """Returns `Dataset.ids` of the images `rows`, or the first so many, of a file or a folder."""
    rows = np.arange(rows) if isinstance(rows, int) else rows
    return np.stack([np.full(len(rows), zlib.crc32(container.encode())), rows], axis=1)


def divide(
    name: str,
    split: str,
    parts: Collection[str],
    read: Callable[[str], Dataset],
    *,
    whole: bool = True,
    held_out: int = 0,
) -> Dataset:
    """Reads a split of the set `name`: see `open_dataset`.

    `split` names one of `parts`; if `whole`, also "all", "train", "validation" or "test" of the
    undivided set, which `read("")` returns. The last two have `held_out` images each, or a tenth.
    """
    match = re.fullmatch(r"(.+)\[(-?\d+%?)?:(-?\d+%?)?\]", split)
    base, *ends = match.groups() if match else (split, None, None)
    choices = ("all", *SPLITS, *parts) if whole and not set(SPLITS) & set(parts) else parts
    if base not in choices:
        names = ", ".join(sorted(choices))
        raise UserError(f"{name} has no split {split!r}, only parts of {names}")
    dataset = read(base if base in parts else "")
    rows = np.arange(len(dataset))
    if base in SPLITS and base not in parts:
        held_out = held_out or max(1, len(rows) // 10)
        ends_of_parts = [len(rows) - 2 * held_out, len(rows) - held_out]
        rows = np.sort(np.split(random_order(len(rows)), ends_of_parts)[SPLITS.index(base)])
    # TFDS rounds percents in the same way.
    numbers = [
        round(int(end[:-1]) * len(rows) / 100) if end and end[-1] == "%" else end and int(end)
        for end in ends
    ]
    if not (chosen := rows[slice(*numbers)]).size:
        few = f"{base!r} has {len(rows)} of {len(dataset)}"
        raise UserError(f"{name} has no images in {split!r}: {few}")
    part = dataset if chosen.size == len(dataset) else dataset.part(chosen)
    return dataclasses.replace(part, name=f"split {split!r} of {name}")


def evenly_spaced(count: int, most: int) -> np.ndarray:
    """Returns at most `most` numbers below `count`, spread over them."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def balanced_classes(n: int, num_classes: int) -> np.ndarray:
    """Returns `[n]` classes in increasing order, whose counts differ by one at most."""
    return np.arange(n) * num_classes // n


def random_order(count: int) -> np.ndarray:
    """Returns the numbers below `count` in a random order, always the same one."""
    # NumPy promises never to change the raw output of a bit generator.
    return np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")


def check_disjoint(**splits: Any) -> None:
    """Raises a `UserError` if two of "train", "validation" and "test" share images."""
    for one, other in itertools.combinations(splits, 2):
        first, second = (splits[name].ids[:, :2] @ np.array([2**31, 1]) for name in (one, other))
        if shared := np.intersect1d(first, second).size:
            raise UserError(f"data.{one}_split and data.{other}_split share {shared:,} images")
