"""Sets that are arrays in memory."""

import dataclasses
import zlib
from typing import Any

import numpy as np

from pixel_rnn_jax.config import Config
from pixel_rnn_jax.data.records import Records, random_order, record_keys
from pixel_rnn_jax.data.source import IN_MEMORY, Source
from pixel_rnn_jax.errors import UserError, first_sentence

Pair = tuple[Any, Any]
"""Images and their condition, or None."""


def memory_sources(
    config: Config, images: Any, condition: Any, validation: float | Pair | Any
) -> tuple[Config, Source, Source]:
    """Makes training and validation images of arrays.

    Args:
        config: The model and the data; `data.levels` of 0 becomes the largest value + 1.
        images: `[N, H, W]` or `[N, H, W, C]`: integers from 0 to K - 1, or real numbers.
        condition: `[N]` classes, as integers or names; `[N, D]` or `[N, H, W, D]` numbers; or None.
        validation: The share of the images that validates, drawn at random but the same each time;
            or images of their own, or a pair of images and their condition.

    Returns:
        The config with the levels and a name for the arrays, which a change of them changes; and
        the two sources.

    Raises:
        UserError: The arrays do not fit one another or the config.
    """
    images, condition = _arrays("images", images, condition)
    # Before some are held out: a value or a class may be in those alone.
    largest = int(images.max()) if images.dtype.kind in "biu" else 0
    names: tuple[str, ...] = ()
    if condition is not None and condition.dtype.kind == "U":
        names = tuple(np.unique(condition).tolist())
    if isinstance(validation, (int, float, np.number)):
        share = float(validation)
        if not 0 < share < 1:
            raise UserError(f"validation must be a share between 0 and 1, got {validation}")
        held_out = np.sort(random_order(len(images))[: max(1, round(share * len(images)))])
        if len(held_out) == len(images):
            raise UserError(f"validation needs images of its own, got {len(images)} in all")
        other, other_condition = _rows(images, condition, held_out)
        kept = np.setdiff1d(np.arange(len(images)), held_out)
        images, condition = _rows(images, condition, kept)
    else:
        pair = validation if isinstance(validation, tuple) else (validation, None)
        if len(pair) != 2:
            raise UserError(
                f"validation must be a pair of images and their condition, got {len(pair)} arrays"
            )
        other, other_condition = _arrays("validation", *pair)
        if other.dtype.kind in "biu":
            largest = max(largest, int(other.max()))
    if names:
        condition, other_condition = (
            _numbers(each, names) for each in (condition, other_condition)
        )
    levels = config.data.levels
    if not levels and config.model.output != "gaussian_mixture" and images.dtype.kind in "biu":
        levels = max(2, largest + 1)
    digest = 0
    for array in (images, condition, other, other_condition):
        if array is not None:
            digest = zlib.crc32(np.ascontiguousarray(array).view(np.uint8), digest)
    name = f"{IN_MEMORY} {digest:08x}"
    config = dataclasses.replace(
        config, data=dataclasses.replace(config.data, name=name, levels=levels)
    )
    train = _source(config, "training", images, condition, names)
    return config, train, _source(config, "validation", other, other_condition, names)


def form_of_condition(condition: Any) -> dict[str, Any]:
    """Returns the field of `ModelConfig` that a condition of arrays belongs to, with its value."""
    array = _condition(condition)
    if array.ndim == 1 and array.dtype.kind in "iuU":
        count = len(np.unique(array)) if array.dtype.kind == "U" else int(array.max()) + 1
        return {"num_classes": max(2, count)}
    if array.ndim in (2, 4) and array.dtype.kind in "biuf":
        field = "condition_vector" if array.ndim == 2 else "condition_map"
        return {field: array.shape[-1]}
    raise UserError(
        "condition must be [N] integers or names, or [N, D] or [N, H, W, D] numbers, got shape "
        f"{list(array.shape)} of {array.dtype}"
    )


def _arrays(what: str, images: Any, condition: Any) -> tuple[np.ndarray, np.ndarray | None]:
    images = _array(what, images)
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or 0 in images.shape or images.dtype.kind not in "biuf":
        raise UserError(
            f"{what} must be numbers of shape [N, H, W] or [N, H, W, C], got {list(images.shape)} "
            f"of {images.dtype}"
        )
    if condition is None:
        return images, None
    condition = _condition(condition)
    if len(condition) != len(images):
        raise UserError(f"there are {len(images)} images, but condition has {len(condition)} rows")
    return images, condition


def _array(what: str, given: Any) -> np.ndarray:
    try:
        return np.asarray(given)
    except ValueError as error:  # Of rows that are not equally long.
        raise UserError(f"{what} must be an array: {first_sentence(error)}") from error


def _condition(condition: Any) -> np.ndarray:
    """Returns a condition as an array of at least one axis, of numbers or of text."""
    array = _array("condition", condition)
    if array.dtype.kind == "O" and all(isinstance(name, str) for name in array.ravel()):
        array = array.astype(str)  # As pandas keeps text.
    if not array.size or array.dtype.kind not in "biufU":
        raise UserError(
            f"condition must be numbers or names, got {list(array.shape)} of {array.dtype}"
        )
    if array.ndim == 1 and array.dtype.kind == "i" and array.min() < 0:
        raise UserError(f"classes must be integers from 0 on, got {array.min()}")
    return np.atleast_1d(array)


def _rows(
    images: np.ndarray, condition: np.ndarray | None, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray | None]:
    return images[rows], None if condition is None else condition[rows]


def _numbers(condition: np.ndarray | None, names: tuple[str, ...]) -> np.ndarray | None:
    if condition is None:
        return None
    unknown = set(condition.tolist()) - set(names)
    if unknown:
        raise UserError(f"the class {sorted(unknown)[0]!r} of validation is in no training image")
    return np.searchsorted(names, condition)


def _source(
    config: Config,
    split: str,
    images: np.ndarray,
    condition: np.ndarray | None,
    names: tuple[str, ...],
) -> Source:
    def read(indices: np.ndarray) -> np.ndarray:
        return images[indices]

    def read_condition(indices: np.ndarray) -> np.ndarray:
        assert condition is not None
        return condition[indices]

    given = read_condition if condition is not None else None
    highest = -1
    if classes := condition is not None and condition.ndim == 1 and condition.dtype.kind in "iu":
        highest = int(np.max(condition))
    records = Records(
        name=f"the {split} set",
        image_shape=images.shape[1:],
        dtype=images.dtype,
        keys=record_keys(split, np.arange(len(images))),
        read=read,
        labels=given if classes else None,
        classes=len(names) or highest + 1,
        class_names=names,
        condition=None if classes else given,
        condition_shape=() if condition is None else condition.shape[1:],
    )
    return Source(records, config, 0 if config.model.output == "logistic_mixture" else None)
