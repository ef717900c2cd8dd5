"""Stored images: their one type, the identity of each, and how a set is divided into splits."""

import dataclasses
import math
import re
import zlib
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pixel_rnn_jax.errors import UserError

SPLITS = ("train", "validation", "test")
CACHE_BYTES = 2**30
"""Decoded images of a split are kept in memory if all together need no more than this."""


class Batch(NamedTuple):
    """Images with what a model is conditioned on, as NumPy or JAX arrays.

    Attributes:
        images: `[B, H, W, C]` integers from 0 to K - 1, or floats: dequantised values, or any real
            ones.
        condition: `[B]` integers of a model with classes; `[B, D]` or `[B, H, W, D]` float32 of a
            model with condition_vector or condition_map; None for a model without condition.
    """

    images: Any
    condition: Any = None


class Images(NamedTuple):
    """Images with their names.

    Attributes:
        images: `[N, H, W, C]`, as a model takes them.
        condition: Classes `[N]`, by number or by name, or vectors `[N, D]` or maps `[N, H, W, D]`;
            None if there are none.
        names: N strings: names of files relative to their folder, or rows in an array.
    """

    images: np.ndarray
    condition: np.ndarray | None = None
    names: Sequence[str] = ()


def value_dtype(levels: int) -> np.dtype:
    """Returns the smallest of uint8, uint16 and int32 that holds the values 0 to `levels` - 1."""
    return np.min_scalar_type(levels - 1) if levels <= 2**16 else np.dtype(np.int32)


class LazyArray:
    """Rows that are read when they are indexed, and kept if all together are small.

    Args:
        read: Maps row numbers [B], each once, to the rows, which all have one shape; thread-safe.
        names: Names of all rows, for errors.

    Raises:
        UserError: When it is indexed: a row has another shape or type than the first.
    """

    def __init__(self, read: Callable[[np.ndarray], Iterable[Any]], names: Sequence[str]):
        self._read, self._names = read, names
        first = np.asarray(next(iter(read(np.arange(1)))))
        self.shape, self.dtype = (len(names), *first.shape), first.dtype
        small = math.prod(self.shape) * self.dtype.itemsize <= CACHE_BYTES
        self._kept = np.empty(self.shape, self.dtype) if small else None
        self._is_kept = np.zeros(len(names), bool)

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        if self._kept is None:
            unique, rows = np.unique(indices, return_inverse=True)  # One image pads a last batch.
            return self._stacked(unique)[rows]
        missing = np.unique(indices[~self._is_kept[indices]])
        if missing.size:
            self._kept[missing] = self._stacked(missing)
            self._is_kept[missing] = True  # Only now, as other threads may be reading.
        return self._kept[indices]

    def _stacked(self, indices: np.ndarray) -> np.ndarray:
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for number, (index, row) in enumerate(zip(indices, self._read(indices), strict=True)):
            shape, dtype = np.shape(row), np.asarray(row).dtype
            if (shape, dtype) != (rows.shape[1:], rows.dtype):
                raise UserError(
                    f"all images of a set must have one shape and type: {self._names[index]} is "
                    f"{list(shape)} of {dtype}, {self._names[0]} {list(rows.shape[1:])} of "
                    f"{rows.dtype}"
                )
            rows[number] = row
        return rows


@dataclass(frozen=True)
class Rows:
    """Some rows of an array that stays where it is: on disk, or not read yet."""

    array: Any
    rows: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """That of the rows."""
        return (len(self.rows), *self.array.shape[1:])

    @property
    def dtype(self) -> np.dtype:
        """That of the array."""
        return self.array.dtype

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self.array[self.rows[indices]])


@dataclass(frozen=True)
class Dataset:
    """The images of one split as they are stored.

    Arrays are those of NumPy, or have `shape`, `dtype` and a thread-safe `array[indices]`.

    Attributes:
        name: The split in error messages.
        images: `[N, H, W, C]` integers, booleans or floats.
        ids: `[N, 2]` integers, the identity of each image whichever part of the set is read: image
            50,000 of "train" has the same as image 0 of "train[50000:]".
        levels: K, if the set declares it.
        labels: `[N]` numbers of classes (where none is meant, negative ones); None without labels.
        class_names: The names of the classes 0, 1, ... of the whole set; () if they have none.
        condition: `[N, D]` vectors or `[N, H, W, D]` maps; None if the set has neither.
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

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return tuple(self.images.shape[1:])

    def names(self) -> list[str]:
        """Returns the names of all images: those of their files, or their rows in the array."""
        return list(self.file_names) or self.ids[:, 1].astype(str).tolist()

    def describe(self, index: int) -> str:
        """Returns the name of an image for error messages."""
        name = self.file_names[index] if self.file_names else f"image {self.ids[index, 1]}"
        return f"{name} of {self.name}"

    def part(self, rows: np.ndarray) -> "Dataset":
        """Returns the images `rows`."""

        def chosen(array: Any) -> Any:
            if array is None or type(array) is np.ndarray:
                return array if array is None else array[rows]
            return Rows(array, rows)

        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            images=chosen(self.images),
            labels=chosen(self.labels),
            condition=chosen(self.condition),
            file_names=[self.file_names[row] for row in rows] if self.file_names else (),
        )


def image_ids(container: str, rows: np.ndarray) -> np.ndarray:
    """Returns `Dataset.ids` for the images `rows` of a file, an array or a folder."""
    return np.stack([np.full(len(rows), zlib.crc32(container.encode())), rows], axis=1)


def number_labels(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns the numbers of classes that are given by name: -1 for one that is not among them."""
    numbers = {name: number for number, name in enumerate(class_names)}
    return np.array([numbers.get(name, -1) for name in labels.tolist()])


def has_part(name: str, split: str, parts: Collection[str]) -> bool:
    """Returns whether `split` is one of the parts of a set; False if the set is not divided.

    Raises:
        UserError: The set is divided, but has no such split.
    """
    if split not in parts and set(SPLITS) & set(parts):
        raise no_split(name, split, parts)
    return split in parts


def divide(name: str, split: str, count: int, held_out: int | None = None) -> np.ndarray:
    """Returns the ascending numbers of a split's images in an undivided set of `count` images.

    Validation and test have `held_out` images each, by default a tenth of the set.

    Raises:
        UserError: There is no such split, or the set is too small.
    """
    if split == "all":
        return np.arange(count)
    if split not in SPLITS:
        raise no_split(name, split, ("all", *SPLITS))
    if count < 3:
        raise UserError(f"{name} must have at least 3 images to be divided, got {count}")
    held_out = held_out or max(1, count // 10)
    parts = np.split(random_order(count), [count - 2 * held_out, count - held_out])
    return np.sort(parts[SPLITS.index(split)])


def random_order(count: int) -> np.ndarray:
    """Returns the numbers below `count` in a random order, always the same one."""
    # NumPy promises never to change the raw output of a bit generator.
    return np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")


_PART = re.compile(r"(.+)\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\]")


def open_part(open_split: Callable[[str], Dataset], split: str) -> Dataset:
    """Opens a split, or a part of one as TFDS writes it: "test[:300]", "train[10%:20%]".

    Raises:
        UserError: As `open_split`; or there are no images in the part.
    """
    if not (match := _PART.fullmatch(split)):
        return open_split(split)
    name, *ends = match.groups()
    whole = open_split(name)
    count = len(whole)
    start, stop = (
        round(count * int(number) / 100) if percent else int(number or default)
        for number, percent, default in ((*ends[:2], 0), (*ends[2:], count))
    )
    rows = np.arange(count)[start:stop]
    if not len(rows):
        raise UserError(f"{whole.name} has {count:,} images, of which {split!r} takes none")
    part_name = whole.name.replace(repr(name), repr(split))
    return dataclasses.replace(whole.part(rows), name=part_name)


def no_split(name: str, split: str, existing: Collection[str]) -> UserError:
    """Returns the error for a split that does not exist; `name` is that of the set."""
    choices = ", ".join(sorted(existing))
    return UserError(
        f"{name} has no split {split!r}: choose from {choices}, or a part such as 'train[:90%]'"
    )


def check_disjoint(**splits: Any) -> None:
    """Checks that splits, by the names "train", "validation" and "test", share no images.

    Raises:
        UserError: Two do; otherwise the best checkpoint could be chosen by the images reported.
    """
    numbers = {
        name: split.ids[:, 0].astype(np.uint64) << np.uint64(32) | split.ids[:, 1].astype(np.uint64)
        for name, split in splits.items()
    }
    names = list(numbers)
    for one, other in ((a, b) for i, a in enumerate(names) for b in names[i + 1 :]):
        if shared := np.intersect1d(numbers[one], numbers[other]).size:
            raise UserError(
                f"data.{one}_split and data.{other}_split share {shared:,} images: choose splits "
                "that do not overlap"
            )
