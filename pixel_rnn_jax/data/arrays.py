"""Sets that are arrays: scikit-learn's digits, and .npy and .npz files."""

import contextlib
from pathlib import Path

import numpy as np

from pixel_rnn_jax.data import npz, records
from pixel_rnn_jax.data.npz import Beside
from pixel_rnn_jax.errors import UserError


def open_digits(name: str, split: str) -> records.Records:
    """Opens a split of scikit-learn's 1,797 digits of 8×8, K = 17."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    rows = records.divide(name, split, len(images), held_out=250)
    keys = records.record_keys(split, rows)
    return _records(name, split, images[rows], keys, Beside(labels=digits.target), levels=17)


def open_array_file(path: Path, name: str, split: str) -> records.Records:
    """Opens a split of an .npy or .npz file with an array `[N, H, W]` or `[N, H, W, C]`.

    An .npz file may have an array for each split. Beside the images it may have labels in an array
    `labels`, and vectors or maps in an array `condition`: or in `train_labels`, `train_condition`
    and so on.
    """
    key, beside = "", Beside()
    try:
        images = arrays = np.load(path, mmap_mode="r")
        kind = ".npy" if isinstance(arrays, np.ndarray) else ".npz"
        with arrays if kind == ".npz" else contextlib.nullcontext():
            if path.suffix != kind:
                raise UserError(f"{name} is an {kind} file by what it holds: name it so")
            if kind == ".npz":
                key = npz.image_key(npz.image_keys(arrays), name, split)
                images = arrays[key]
                beside = npz.beside(arrays, key, len(images))
    except FileNotFoundError:
        raise UserError(f"{name}: there is no such file") from None
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many types for a damaged file.
        raise npz.not_read(name, error) from error
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise UserError(
            f"{name} must hold an array of shape [N, H, W] or [N, H, W, C], "
            f"got {list(images.shape)}"
        )
    _, first, *rest = (*images.shape, 1)[:4]
    if first in (1, 3, 4) and rest[0] == rest[1] > 4:
        raise UserError(
            f"{name} has the shape {list(images.shape)}, as if its channels came first: they come "
            "last here, np.moveaxis(images, 1, -1)"
        )
    if images.dtype.kind not in "biuf":
        raise UserError(
            f"{name} must hold integers from 0 to K-1 or real numbers, got {images.dtype}"
        )
    whole = key == split
    rows = np.arange(len(images)) if whole else records.divide(name, split, len(images))
    if not whole and path.suffix == ".npz":
        images = images[rows]  # Each split keeps its own part in memory.
    return _records(name, split, images, records.record_keys(key, rows), beside)


def _records(
    name: str,
    split: str,
    images: np.ndarray,
    keys: np.ndarray,
    beside: Beside,
    levels: int | None = None,
) -> records.Records:
    """Returns the records `keys` of an array, which may lie on disk or hold no others."""
    rows, shape = keys[:, 1], (*images.shape[1:], 1)[:3]
    labels, condition = beside.labels, beside.condition
    highest = -1 if labels is None else int(labels.max())
    places = np.arange(len(rows)) if len(images) == len(rows) else rows
    return records.Records(
        name=f"split {split!r} of {name}",
        image_shape=shape,
        dtype=images.dtype,
        keys=keys,
        read=lambda indices: np.asarray(images[places[indices]]).reshape(-1, *shape),
        declared_levels=levels,
        labels=None if labels is None else lambda indices: labels[rows[indices]],
        classes=len(beside.class_names) or highest + 1,
        class_names=beside.class_names,
        condition=None if condition is None else lambda indices: condition[rows[indices]],
        condition_shape=() if condition is None else condition.shape[1:],
        unusable=beside.unusable,
    )
