"""The stored images of a split, and what all kinds of sets share."""

import re
import zlib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from pixel_rnn_jax.errors import UserError

SPLITS = ("train", "validation", "test")
# Decoded images are kept if all together need no more than this.
CACHE_BYTES = 2**30

Read = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Records:
    """The images of one split as they are stored.

    Attributes:
        name: The split in error messages.
        image_shape: (H, W, C).
        dtype: Integers, booleans or floats.
        keys: `[N, 2]` integers, the identity of each record whichever part of the set is read:
            record 50,000 of "train" has the key of record 0 of "train[50000:]".
        read: Maps record numbers [B] to images [B, H, W, C]; thread-safe.
        declared_levels: K, if the set declares it.
        labels: Maps record numbers [B] to labels [B]; None if the set has no labels.
        classes: Number of classes (of integers in an array, the largest + 1); 0 without labels.
        class_names: Their names; () if they have none.
        condition: Maps record numbers [B] to vectors [B, D] or maps [B, H, W, D]; None if the set
            has neither.
        condition_shape: (D,) or (H, W, D); () without condition.
        file: Maps a record number to the name of its file; None if its row in an array names it.
        mode: Pillow's mode of the files; "" if there are none.
        unusable: Why the set's "labels" or "condition" do not fit its images and were left out.
    """

    name: str
    image_shape: tuple[int, int, int]
    dtype: np.dtype
    keys: np.ndarray
    read: Read
    declared_levels: int | None = None
    labels: Read | None = None
    classes: int = 0
    class_names: tuple[str, ...] = ()
    condition: Read | None = None
    condition_shape: tuple[int, ...] = ()
    file: Callable[[int], str] | None = None
    mode: str = ""
    unusable: Mapping[str, str] = field(default_factory=dict)

    @property
    def levels(self) -> int | None:
        """K, or None if neither the set nor the type of the values tells it."""
        return self.declared_levels or {"bool": 2, "uint8": 256}.get(self.dtype.name)

    def record_name(self, index: int) -> str:
        """Returns the name of a record: that of its file, or its row in the array as a string."""
        return self.file(index) if self.file else str(self.keys[index, 1])

    def record_names(self) -> np.ndarray:
        """Returns the names of all records, `[N]` strings."""
        return np.array([self.record_name(index) for index in range(len(self.keys))])


def no_split(name: str, split: str, existing: Collection[str]) -> UserError:
    """Returns the error for a split that does not exist; `name` is that of the set."""
    return UserError(
        f"{name} has no split {split!r}: choose from "
        f"{', '.join(sorted(existing))}, or a part of one such as 'train[:90%]'"
    )


_PART = re.compile(r"(.+)\[(?:(\d+)(%?))?:(?:(\d+)(%?))?\]")


def open_part(open_split: Callable[[str], Records], split: str) -> Records:
    """Opens a split, or a part of one as TFDS writes it: "test[:300]", "train[10%:20%]".

    Raises:
        UserError: As `open_split`; or there are no records in the part.
    """
    if not (found := _PART.fullmatch(split)):
        return open_split(split)
    name, *ends = found.groups()
    whole = open_split(name)
    count = len(whole.keys)
    start, stop = (
        round(count * int(number) / 100) if percent else int(number or default)
        for number, percent, default in ((*ends[:2], 0), (*ends[2:], count))
    )
    rows = np.arange(count)[start:stop]
    if not len(rows):
        raise UserError(f"{whole.name} has {count:,} images, of which {split!r} takes none")

    def of_rows(read: Any) -> Any:
        return read and (lambda indices: read(rows[indices]))

    return replace(
        whole,
        name=whole.name.replace(repr(name), repr(split)),
        keys=whole.keys[rows],
        read=of_rows(whole.read),
        labels=of_rows(whole.labels),
        condition=of_rows(whole.condition),
        file=of_rows(whole.file),
    )


def is_divided(name: str, split: str, parts: Collection[str]) -> bool:
    """Returns whether `split` is one of the parts of a set; False if the set is not divided.

    Raises:
        UserError: The set is divided, but has no such split.
    """
    if split in parts or not set(SPLITS) & set(parts):
        return split in parts
    if split == "all":
        raise UserError(
            f"{name} is divided into {', '.join(sorted(parts))}: give a folder or file that holds "
            "one of these parts alone, or name the split"
        )
    raise no_split(name, split, parts)


def divide(name: str, split: str, count: int, held_out: int | None = None) -> np.ndarray:
    """Returns the ascending numbers of a split's records in an undivided set of `count` records.

    Validation and test have `held_out` records each, by default a tenth of the set.

    Raises:
        UserError: There is no such split, or the set is too small.
    """
    if split == "all":
        return np.arange(count)
    if split not in SPLITS:
        raise no_split(name, split, ("all", *SPLITS))
    if count < 3:
        raise UserError(
            f"{name} must have at least 3 images to be divided into train, validation and test, "
            f"got {count}"
        )
    held_out = held_out or max(1, count // 10)
    order = random_order(count)
    parts = np.split(order, [count - 2 * held_out, count - held_out])
    return np.sort(parts[SPLITS.index(split)])


def random_order(count: int) -> np.ndarray:
    """Returns the numbers below `count` in a random order, always the same one."""
    # NumPy promises never to change the raw output of a bit generator.
    return np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")


def record_keys(container: str, rows: np.ndarray) -> np.ndarray:
    """Returns `Records.keys` for the records `rows` of a file, an array or a folder."""
    return np.stack([np.full(len(rows), zlib.crc32(container.encode())), rows], axis=1)


def cached(read: Read, count: int, shape: tuple[int, ...], dtype: np.dtype) -> Read:
    """Returns `read` with a cache, unless all `count` results need more than CACHE_BYTES."""
    if count * int(np.prod(shape)) * dtype.itemsize > CACHE_BYTES:
        return read
    results = np.empty((count, *shape), dtype)
    known = np.zeros(count, bool)

    def read_cached(indices: np.ndarray) -> np.ndarray:
        missing = indices[~known[indices]]
        if missing.size:
            results[missing] = read(missing)
            known[missing] = True  # Only now, as other threads may be reading.
        return results[indices]

    return read_cached


def finite(values: np.ndarray, indices: np.ndarray, name: str) -> np.ndarray:
    """Returns numbers of the records `indices` as float32.

    Raises:
        UserError: One is NaN or infinity; `name` says of which split, and perhaps which part of it.
    """
    with np.errstate(over="ignore"):
        numbers = values.astype(np.float32, copy=False)
    wrong = ~np.isfinite(numbers)
    if wrong.any():
        first = tuple(np.argwhere(wrong)[0])
        raise UserError(
            f"record {indices[first[0]]} of {name} has the value {values[first]}, but its values "
            "must be finite numbers of type float32: repair it or leave it out"
        )
    return numbers
