"""What .npz files hold: arrays of images, and beside them labels, names of classes, conditions."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pixel_rnn_jax.data import records
from pixel_rnn_jax.errors import UserError, first_sentence

# Keys of arrays that are not images.
_BESIDE = re.compile(r".*labels|(.*_)?condition|class_names|names")


class _DoesNotFit(Exception):
    """Why an array cannot belong to the images."""


@dataclass(frozen=True)
class Beside:
    """What a file holds beside an array of images: see the same attributes of `Records`."""

    labels: np.ndarray | None = None
    class_names: tuple[str, ...] = ()
    condition: np.ndarray | None = None
    unusable: dict[str, str] = field(default_factory=dict)


def not_read(name: str, error: Exception) -> UserError:
    """Returns the error for a file that NumPy does not read, from what it raised."""
    reason = first_sentence(error)
    if "pickled" in reason:  # What NumPy takes any other file for.
        reason = "it is no .npy or .npz file"
    elif reason.startswith("Object arrays"):
        reason = "it holds objects, not numbers"
    return UserError(f"{name} cannot be read as an array: {reason}")


def image_keys(arrays: Any) -> list[str]:
    """Returns the keys of the arrays that may be images."""
    return [key for key in arrays.files if not _BESIDE.fullmatch(key)]


def image_key(keys: list[str], name: str, split: str) -> str:
    """Returns the key of the split's own array, or of the only one, which is then divided."""
    if records.is_divided(name, split, keys):
        return split
    if len(keys) != 1:
        raise UserError(
            f"{name} must hold one array, or arrays named train, validation and test, got "
            f"{', '.join(keys) or 'none'}"
        )
    return keys[0]


def beside(arrays: Any, key: str, count: int) -> Beside:
    """Returns what belongs to the `count` images `key`; whatever does not fit is left out."""
    labels = condition = None
    class_names: tuple[str, ...] = ()
    unusable = {}
    try:
        labels, class_names = _labels(arrays, key, count)
    except _DoesNotFit as error:
        unusable["labels"] = str(error)
    try:
        condition = _condition(arrays, key, count)
    except _DoesNotFit as error:
        unusable["condition"] = str(error)
    return Beside(labels, class_names, condition, unusable)


def _labels(arrays: Any, key: str, count: int) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Returns the numbers of the classes of all images, and the names of all classes."""
    name = _own(arrays, key, "labels")
    if name not in arrays.files:
        return None, ()
    labels = _array(arrays, name)
    must = f"`{name}` must hold an integer from 0 on or a string for each of the {count} images"
    if labels.shape != (count,) or labels.dtype.kind not in "iuU":
        raise _DoesNotFit(f"{must}, got shape {list(labels.shape)} of {labels.dtype}")
    if labels.dtype.kind != "U" and (labels < 0).any():
        raise _DoesNotFit(f"{must}, got {labels.min()}")
    # Of all splits, so that each gives a class the same number.
    all_labels = list(_arrays(arrays, {"labels", *(f"{k}_labels" for k in image_keys(arrays))}))
    strings = [each for each in all_labels if each.dtype.kind == "U"]
    named = "class_names" in arrays.files
    if not strings:
        return labels, _class_names(arrays, int(labels.max(initial=0))) if named else ()
    if len(strings) < len(all_labels):
        raise _DoesNotFit("the arrays of labels must all hold integers, or all strings")
    if named:
        raise _DoesNotFit(f"`class_names` is for integers, but `{name}` holds the names themselves")
    names = np.unique(np.concatenate([each.ravel() for each in strings]))
    return np.searchsorted(names, labels), tuple(names.tolist())


def _class_names(arrays: Any, highest: int) -> tuple[str, ...]:
    """Returns the names of the classes 0 to at least `highest`."""
    array = _array(arrays, "class_names")
    names = tuple(array.tolist()) if array.ndim == 1 and array.dtype.kind == "U" else ()
    if len(names) <= highest or len(set(names)) < len(names):
        raise _DoesNotFit(
            f"`class_names` must hold a string of its own for each label from 0 to {highest}, got "
            f"shape {list(array.shape)} of {array.dtype}: {', '.join(map(str, array.flat[:5]))}"
        )
    return names


def _condition(arrays: Any, key: str, count: int) -> np.ndarray | None:
    name = _own(arrays, key, "condition")
    if name not in arrays.files:
        return None
    condition = _array(arrays, name)
    rows = condition.ndim in (2, 4) and len(condition) == count
    if not rows or condition.dtype.kind not in "biuf":
        raise _DoesNotFit(
            f"`{name}` must hold numbers of shape [{count}, D] or [{count}, H, W, D], a row for "
            f"each image, got shape {list(condition.shape)} of {condition.dtype}"
        )
    return condition


def _own(arrays: Any, key: str, what: str) -> str:
    """Returns the key of what belongs to the images `key`: `what` where there are no others."""
    own = f"{key}_{what}"
    if own in arrays.files or len(image_keys(arrays)) == 1:
        return own if own in arrays.files else what
    if what in arrays.files:
        raise _DoesNotFit(f"`{what}` does not say of which images it is: name it `{own}`")
    return own


def _arrays(arrays: Any, names: Iterable[str]) -> Iterable[np.ndarray]:
    return (_array(arrays, name) for name in arrays.files if name in names)


def _array(arrays: Any, name: str) -> np.ndarray:
    """Returns an array; bytes become strings."""
    try:
        array = arrays[name]
    except ValueError as error:  # Python objects.
        raise _DoesNotFit(f"`{name}` cannot be read: {first_sentence(error)}") from error
    return np.char.decode(array, "utf-8", "backslashreplace") if array.dtype.kind == "S" else array
