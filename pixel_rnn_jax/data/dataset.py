"""Stored images: their one type, the identity of each, and how a set is divided into splits."""

import dataclasses
import itertools
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

    `read` maps row numbers [B] to the rows; `names` are those of all rows, for errors.

    Raises:
        UserError: When it is indexed: a row has another shape or type than the first.
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
            unique, rows = np.unique(indices, return_inverse=True)  # One image pads a last batch.
            return self._stacked(unique)[rows]
        missing = np.unique(indices[~self._is_kept[indices]])
        if missing.size:
            self._kept[missing] = self._stacked(missing)
            self._is_kept[missing] = True  # Only now, as other threads may be reading.
        return self._kept[indices]

    def _stacked(self, indices: np.ndarray) -> np.ndarray:
        rows = np.empty((len(indices), *self.shape[1:]), self.dtype)
        for number, row in enumerate(map(np.asarray, self._read(indices))):
            if (row.shape, row.dtype) != (self.shape[1:], self.dtype):
                raise UserError(
                    f"{self._names[indices[number]]} has shape {list(row.shape)} of {row.dtype}, "
                    f"but {self._names[0]} {list(self.shape[1:])} of {self.dtype}: all images of a "
                    "set must have one form"
                )
            rows[number] = row
        return rows


class _Rows:
    """Some rows of an array that stays where it is: on disk, or not read yet."""

    def __init__(self, array: Any, rows: np.ndarray):
        self._array, self._rows = array, rows
        self.shape, self.dtype = (len(rows), *array.shape[1:]), array.dtype

    def __getitem__(self, indices: np.ndarray) -> np.ndarray:
        return np.asarray(self._array[self._rows[indices]])


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
            return array[rows] if type(array) is np.ndarray else _Rows(array, rows)

        return dataclasses.replace(
            self,
            ids=self.ids[rows],
            images=chosen(self.images),
            labels=None if self.labels is None else chosen(self.labels),
            condition=None if self.condition is None else chosen(self.condition),
            file_names=[self.file_names[row] for row in rows] if self.file_names else (),
        )


def image_ids(container: str, rows: np.ndarray) -> np.ndarray:
    """Returns `Dataset.ids` for the images `rows` of a file, an array or a folder."""
    return np.stack([np.full(len(rows), zlib.crc32(container.encode())), rows], axis=1)


def number_labels(labels: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """Returns the numbers of classes that are given by name: -1 for one that is not among them."""
    numbers = {name: number for number, name in enumerate(class_names)}
    return np.array([numbers.get(name, -1) for name in labels.tolist()])


_RANGE = re.compile(r"(.+?)(?:\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\])?")


def open_split_of(
    name: str,
    split: str,
    parts: Collection[str],
    open_part: Callable[[str], Dataset],
    held_out: int = 0,
) -> Dataset:
    """Opens a split of the set `name`, which may be divided into `parts`; "" is the whole set.

    An undivided set has "all" and, by a fixed permutation, "train", "validation" and "test", of
    which the last two have `held_out` images each, or a tenth. Of a split a range may be taken as
    TFDS writes it: "test[:300]", "train[10%:20%]".

    Raises:
        UserError: There is no such split, the set is too small, or there are no images in the
            range.
    """
    match = _RANGE.fullmatch(split)
    base, *ends = match.groups() if match else (split, "", "", "", "")
    choices = parts if set(SPLITS) & set(parts) else ("all", *SPLITS, *parts)
    if base not in choices:
        existing = ", ".join(sorted(choices))
        raise UserError(f"{name} has no split {split!r}: choose from {existing}, or a range of one")
    whole = open_part(base if base in parts else "")
    rows = np.arange(len(whole))
    if base in SPLITS and base not in parts:
        if len(whole) < 3:
            raise UserError(f"{name} must have at least 3 images to be divided, got {len(whole)}")
        held_out = held_out or max(1, len(whole) // 10)
        ends_of_parts = [len(whole) - 2 * held_out, len(whole) - held_out]
        rows = np.sort(np.split(random_order(len(whole)), ends_of_parts)[SPLITS.index(base)])
    start, stop = (
        round(len(rows) * int(number) / 100) if percent else int(number or default)
        for number, percent, default in ((*ends[:2], 0), (*ends[2:], len(rows)))
    )
    if not len(rows[start:stop]):
        raise UserError(f"{name} has no images in {split!r}: {base!r} has {len(rows)}")
    part = whole if len(rows[start:stop]) == len(whole) else whole.part(rows[start:stop])
    return dataclasses.replace(part, name=f"split {split!r} of {name}")


def random_order(count: int) -> np.ndarray:
    """Returns the numbers below `count` in a random order, always the same one."""
    # NumPy promises never to change the raw output of a bit generator.
    return np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")


def check_disjoint(**splits: Any) -> None:
    """Checks that splits, by the names "train", "validation" and "test", share no images.

    Otherwise the best checkpoint could be chosen by the images that are reported.

    Raises:
        UserError: Two do.
    """
    for one, other in itertools.combinations(splits, 2):
        first, second = (splits[name].ids @ np.array([2**31, 1]) for name in (one, other))
        if shared := np.intersect1d(first, second).size:
            raise UserError(
                f"data.{one}_split and data.{other}_split share {shared:,} images: choose splits "
                "that do not overlap"
            )
