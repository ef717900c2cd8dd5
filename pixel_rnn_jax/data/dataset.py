"""Stored images: their one type, the identity of each, and how a set is divided into splits."""

import dataclasses
import itertools
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pixel_rnn_jax.model import checks
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system.errors import UserError

SPLITS = ("train", "validation", "test")
CACHE_BYTES = 2**30
"""Images of a split are kept in memory once read if all together need no more."""


class Batch(NamedTuple):
    """Images and condition as a model takes them (see `PixelRNN`), NumPy's or JAX's arrays."""

    images: Any
    condition: Any = None


class Images(NamedTuple):
    """Images `[N, H, W, C]` as a model takes them, with their condition and names.

    The condition is classes `[N]`, by number or by name, vectors `[N, D]` or maps `[N, H, W, D]`.
    The names are N names of files relative to their folder, or rows in an array.

    >>> prnn.Images(np.zeros((3, 8, 8, 1), np.uint8), np.array([0, 1, 0])).condition.shape
    (3,)
    """

    images: np.ndarray
    condition: np.ndarray | None = None
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
    """Reads rows on demand; caches them if the whole set needs at most `CACHE_BYTES`.

    `read` yields rows by their numbers. `names` has the names of all rows, for errors.
    """

    def __init__(self, read: Callable[[np.ndarray], Iterable[Any]], names: Sequence[Any]):
        self._read, self._names = read, names
        first = np.asarray(next(iter(read(np.arange(1)))))
        self.shape, self.dtype = (len(names), *first.shape), first.dtype
        small = math.prod(self.shape) * self.dtype.itemsize <= CACHE_BYTES
        self._kept = np.empty(self.shape, self.dtype) if small else None
        self._is_kept = np.zeros(len(names), bool)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if self._kept is None:
            return self.stack(indices)
        if (missing := np.unique(indices[~self._is_kept[indices]])).size:
            self._kept[missing] = self.stack(missing)
            self._is_kept[missing] = True  # Only now, as other threads may be reading.
        return self._kept[indices]

    def __iter__(self) -> Iterator[np.ndarray]:
        """Yields all rows as they are read, which may be of several shapes."""
        for number in range(len(self._names)):
            yield from map(np.asarray, self._read(np.array([number])))

    def part(self, rows: np.ndarray) -> "LazyArray":
        """Returns an array of the rows `rows`."""
        return LazyArray(lambda indices: self._read(rows[indices]), [self._names[i] for i in rows])

    def stack(self, indices: np.ndarray) -> np.ndarray:
        """Reads rows, which must be of one shape and type."""
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for number, row in enumerate(map(np.asarray, self._read(indices))):
            if (row.shape, row.dtype) != (self.shape[1:], self.dtype):
                found = f"has shape {list(row.shape)} of {row.dtype}"
                other = f"{self._names[0]} {list(self.shape[1:])} of {self.dtype}"
                raise UserError(f"{self._names[indices[number]]} {found}, but {other}")
            rows[number] = row
        return rows


@dataclass(frozen=True)
class Dataset:
    """The images of one split as they are stored; the arrays are NumPy's, or `LazyArray`s.

    Attributes:
        name: The split in error messages.
        images: `[N, H, W, C]` integers, booleans or floats; of `[N, H, W]` C is 1.
        ids: `[N, 2]` integers, a stable id of each image: image 0 of "train[50000:]" has the id of
            image 50,000 of "train".
        levels: K, if the set declares it.
        labels: `[N]` numbers of classes, negative for none, also given as names.
        class_names: The names of the classes 0, 1, ...; () takes the labels, if they are names.
        condition: `[N, D]` vectors or `[N, H, W, D]` maps.
        file_names: `[N]` strings, names of the files; () where rows of an array name the images.
        picture_ids: `[N]` numbers of the pictures that tiles were cut from; None for whole images.
    """

    name: str
    images: Any
    ids: np.ndarray
    levels: int | None = None
    labels: Any = None
    class_names: tuple[str, ...] = ()
    condition: Any = None
    file_names: Sequence[str] = ()
    picture_ids: np.ndarray | None = None

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
        """(H, W, C)."""
        return tuple(self.images.shape[1:])

    def names(self) -> list[str]:
        """Returns the names of all images: of their files, or their rows in the array."""
        return list(self.file_names) or self.ids[:, 1].astype(str).tolist()

    def part(self, rows: np.ndarray) -> "Dataset":
        """Returns the images `rows`."""
        parts: dict[str, Any] = {
            field: array.part(rows) if isinstance(array, LazyArray) else array[rows]
            for field in ("images", "ids", "labels", "condition", "picture_ids")
            if (array := getattr(self, field)) is not None
        }
        file_names = [self.file_names[row] for row in rows] if self.file_names else ()
        return dataclasses.replace(self, file_names=file_names, **parts)


def cut(dataset: Dataset, side: int) -> Dataset:
    """Cuts the pictures of a set, which may differ in height and width, into squares in memory."""
    tiles = [
        (picture[i : i + side, j : j + side], f"{name}/{i}-{j}", number)
        for number, (name, picture) in enumerate(zip(dataset.names(), dataset.images, strict=True))
        for i in range(0, picture.shape[0] - side + 1, side)
        for j in range(0, picture.shape[1] - side + 1, side)
    ]
    if not tiles:
        raise UserError(f"{dataset.name} has no picture of at least {side}x{side} (data.tile)")
    images, names, numbers = zip(*tiles, strict=True)
    rows, picture_ids = np.arange(len(tiles)), np.array(numbers)
    return dataclasses.replace(
        dataset,
        images=LazyArray(lambda indices: (images[i] for i in indices), names).stack(rows),
        ids=np.stack([dataset.ids[picture_ids, 0], rows], axis=1),
        labels=None if dataset.labels is None else dataset.labels[picture_ids],
        condition=None if dataset.condition is None else dataset.condition[picture_ids],
        file_names=names,
        picture_ids=picture_ids,
    )


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
    tile: int = 0,
) -> Dataset:
    """Reads a split of the set `name`: see `open_dataset`.

    `split` names one of `parts`; if `whole`, also "all", "train", "validation" or "test" of the
    undivided set, which `read("")` returns. The last two have `held_out` images each, or a tenth.
    The tiles of a picture stay together: at most two pictures straddle splits.
    """
    match = re.fullmatch(r"(.+)\[(-?\d+%?)?:(-?\d+%?)?\]", split)
    base, *ends = match.groups() if match else (split, None, None)
    choices = ("all", *SPLITS, *parts) if whole and not set(SPLITS) & set(parts) else parts
    if base not in choices:
        names = ", ".join(sorted(choices))
        raise UserError(f"{name} has no split {split!r}, only parts of {names}")
    dataset = read(base if base in parts else "")
    dataset = cut(dataset, tile) if tile else dataset
    rows = np.arange(len(dataset))
    if base in SPLITS and base not in parts:
        held_out = held_out or max(1, len(rows) // 10)
        ends_of_parts = [len(rows) - 2 * held_out, len(rows) - held_out]
        picture_ids = rows if dataset.picture_ids is None else dataset.picture_ids
        rank = np.argsort(random_order(picture_ids[-1] + 1))
        order = np.argsort(rank[picture_ids], kind="stable")  # Rows by the rank of their picture.
        rows = np.sort(np.split(order, ends_of_parts)[SPLITS.index(base)])
    # TFDS rounds percents in the same way.
    numbers = [
        round(int(end[:-1]) * len(rows) / 100) if end and end[-1] == "%" else end and int(end)
        for end in ends
    ]
    if not (chosen := rows[slice(*numbers)]).size:
        few = f"{base!r} has {len(rows)} of {len(dataset)}"
        way = "" if base in parts else ": data.tile=64 cuts larger ones into tiles"
        raise UserError(f"{name} has no images in {split!r}: {few}{way}")
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
        first, second = (splits[name].ids @ np.array([2**31, 1]) for name in (one, other))
        if shared := np.intersect1d(first, second).size:
            raise UserError(f"data.{one}_split and data.{other}_split share {shared:,} images")
