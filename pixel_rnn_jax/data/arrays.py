"""Sets that are arrays: scikit-learn's digits, and .npy and .npz files."""

from pathlib import Path
from typing import Any

import numpy as np

from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.data import records
from pixel_rnn_jax.errors import UserError


def open_digits(config: DataConfig, split: str) -> records.Records:
    """Opens a split of scikit-learn's 1,797 digits of 8×8, K = 17."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    rows = records.divide(config, split, len(images), held_out=250)
    keys = records.record_keys(split, rows)
    return _records(config, split, images, digits.target, keys, levels=17)


def open_array_file(path: Path, config: DataConfig, split: str) -> records.Records:
    """Opens a split of an .npy or .npz file with an array `[N, H, W]` or `[N, H, W, C]`.

    An .npz file may have an array for each split, and labels in an array `labels`, or
    `train_labels` and so on.
    """
    key, labels = "", None
    try:
        images = np.load(path, mmap_mode="r")
        if path.suffix == ".npz":
            with images as arrays:
                key = _npz_key(arrays.files, config, split)
                images = arrays[key]
                labels = _npz_labels(arrays, key, len(images))
    except FileNotFoundError:
        raise UserError(f"data.name {config.name!r}: there is no such file") from None
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib raise many types for a damaged file.
        reason = records.first_sentence(error)
        raise UserError(
            f"data.name {config.name!r} cannot be read as an array: {reason}"
        ) from error
    if images.ndim not in (3, 4) or 0 in images.shape:
        raise UserError(
            f"data.name {config.name!r} must hold an array of shape [N, H, W] or [N, H, W, C], "
            f"got {list(images.shape)}"
        )
    whole = key == split
    rows = np.arange(len(images)) if whole else records.divide(config, split, len(images))
    return _records(config, split, images, labels, records.record_keys(key, rows))


def _npz_key(keys: list[str], config: DataConfig, split: str) -> str:
    """Returns the key of the split's own array, or of the only one, which is then divided."""
    keys = [key for key in keys if not key.endswith("labels")]
    if records.is_divided(config, split, keys):
        return split
    if len(keys) != 1:
        raise UserError(
            f"data.name {config.name!r} must hold one array, or arrays named train, validation and "
            f"test, got {', '.join(keys) or 'none'}"
        )
    return keys[0]


def _npz_labels(arrays: Any, key: str, count: int) -> np.ndarray | None:
    """Returns the labels of the images `key`, or None if no array can be their labels."""
    name = f"{key}_labels" if f"{key}_labels" in arrays.files else "labels"
    try:
        labels = np.asarray(arrays[name])
    except (KeyError, ValueError):  # No such array, or Python objects.
        return None
    fits = labels.shape == (count,) and labels.dtype.kind in "iu" and not (labels < 0).any()
    return labels if fits else None


def _records(
    config: DataConfig,
    split: str,
    images: np.ndarray,
    labels: np.ndarray | None,
    keys: np.ndarray,
    levels: int | None = None,
) -> records.Records:
    """Returns the records `keys` of an array, which may lie on disk."""
    if images.dtype.kind not in "biu":
        raise UserError(
            f"data.name {config.name!r} must hold integers from 0 to K-1, got {images.dtype}: turn "
            "the values into levels first, for example np.round(255 * x).astype(np.uint8)"
        )
    rows, shape = keys[:, 1], (*images.shape[1:], 1)[:3]
    return records.Records(
        name=records.split_name(config, split),
        image_shape=shape,
        dtype=images.dtype,
        keys=keys,
        read=lambda indices: np.asarray(images[rows[indices]]).reshape(-1, *shape),
        declared_levels=levels,
        labels=None if labels is None else lambda indices: labels[rows[indices]],
        classes=0 if labels is None else int(labels.max()) + 1,
    )
