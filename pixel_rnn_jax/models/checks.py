"""Checks of what a model is given: shapes and types always, values where there are any.

The arrays may be tracers of `jit`, `grad` or `vmap`, which have no values.
"""

import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError


def has_values(array: Any) -> bool:
    """Whether an array has values, and is no tracer."""
    return not isinstance(array, jax.core.Tracer)


def all_values(arrays: Any) -> bool:
    """Whether all leaves of a tree have values, and what is computed of them will have."""
    # Inside `jit` an operation on arrays that have values gives a tracer.
    return all(map(has_values, (*jax.tree.leaves(arrays), jnp.zeros(()))))


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python or NumPy, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_switch(name: str, value: Any) -> None:
    """Raises a `UserError` unless `value` is a boolean: any other text would count as true."""
    if not isinstance(value, (bool, np.bool_)):
        raise UserError(f"{name} must be True or False, got {value!r}")


def need_values(method: str, *arrays: Any) -> None:
    """Raises a `UserError` if `method`, which works on values, is given a tracer or is traced."""
    if not all_values(arrays):
        raise UserError(f"{method} needs values: call it outside of functions that JAX transforms")


def check_images(
    images: Any, config: ModelConfig, image_shape: tuple[int, int, int], levels: int
) -> Array:
    """Checks images `[B, H, W, C]` and returns them as a JAX array.

    A discrete model takes integers from 0 to K - 1. A density takes finite floats; with
    `output="logistic_mixture"` level x is the interval [x, x + 1).

    Raises:
        UserError: The shape, the type or a value does not fit.
    """
    found = check_form(images, config, image_shape, levels)
    if config.discrete:
        _check_range("images must have values", found, levels)
    else:
        _check_finite("images", found, jax.dtypes.canonicalize_dtype(found.dtype))
    return jnp.asarray(found)


def check_form(
    images: Any, config: ModelConfig, image_shape: tuple[int, int, int], levels: int
) -> Any:
    """Checks the shape and the type of images, and returns them as an array."""
    images = _array(images, "images")
    if images.ndim != 4 or images.shape[1:] != image_shape:
        shape = ", ".join(map(str, image_shape))
        hint = how_to_fit(images.shape[1:], image_shape)
        raise UserError(f"images must have shape [B, {shape}], got {list(images.shape)}{hint}")
    found = f"got {images.dtype} values"
    if config.discrete:
        if not _is_whole(images):
            raise UserError(f"images must be integers from 0 to {levels - 1} (unscaled), {found}")
    elif not jnp.issubdtype(images.dtype, jnp.floating):
        raise UserError(
            f"a continuous model takes floats from 0 to {levels}, {found}: add noise with "
            "`dequantize`"
            if levels
            else f"a model of real values takes floats, {found}: convert them"
        )
    return images


def how_to_fit(shape: tuple[int, ...], image_shape: tuple[int, int, int]) -> str:
    """Returns what would make images of another shape fit, after a colon; "" if nothing simple."""
    height, width, channels = image_shape
    if shape == (channels, height, width):
        return ": transpose the array to [N, H, W, C]"
    if shape == (height, width, channels + 1) and channels in (1, 3):
        return ": save the images without transparency"
    return ""


def check_known(known: Any, shape: tuple[int, ...]) -> Any:
    """Checks which values of images of `shape`, (B, H, W, C), are known; returns all of them."""
    known = _array(known, "known")
    if known.dtype != bool:
        raise UserError(f"known must be booleans, got {known.dtype} values")
    shapes = shape[1:3], shape[1:], (*shape[:3], 1), shape
    if known.shape not in shapes:
        choices = ", ".join(dict.fromkeys(str(list(choice)) for choice in shapes))
        raise UserError(f"known must have one of the shapes {choices}, got {list(known.shape)}")
    # Operations of JAX would be traced inside `jit`; symbols of `jax.export` are none for NumPy.
    array: Any = jnp
    if has_values(known) and isinstance(shape[0], int):
        array, known = np, np.asarray(known)
    return array.broadcast_to(known[..., None] if known.ndim == 2 else known, shape)


def check_condition(
    condition: Any,
    count: Any,
    config: ModelConfig,
    image_shape: tuple[int, int, int],
) -> Array | None:
    """Checks the condition of `count` images and returns it, None for a model without one.

    Raises:
        UserError: It is missing, of the wrong shape or type, or has a value that is out of range,
            or the model takes none.
    """
    shape, kind = condition_form(config, image_shape)
    if not kind:
        if condition is not None:
            raise UserError(
                "this model has no condition (model.num_classes and so on): leave it out"
            )
        return None
    size = ", ".join(map(str, (count, *shape)))
    if condition is None:
        raise UserError(f"this model needs a condition, {kind}, of shape [{size}]")
    condition = _array(condition, "condition")
    if condition.shape != (count, *shape):
        raise UserError(f"condition must have shape [{size}], {kind}, got {list(condition.shape)}")
    if config.num_classes:
        if not _is_whole(condition) or condition.dtype == bool:
            raise UserError(f"condition must be integers, {kind}, got {condition.dtype} values")
        _check_range("condition must be", condition, config.num_classes)
        return jnp.asarray(condition).astype(jnp.int32)
    if condition.dtype.kind not in "biuf" and not jnp.issubdtype(condition.dtype, jnp.floating):
        raise UserError(f"condition must be numbers, got {condition.dtype} values")
    dtype = jnp.promote_types(config.dtype, jnp.float32)
    _check_finite("condition", condition, dtype)
    return jnp.asarray(condition).astype(dtype)


def condition_form(
    config: ModelConfig, image_shape: tuple[int, int, int]
) -> tuple[tuple[int, ...], str]:
    """Returns the shape of the condition of one image, and what it is in words: "" for none."""
    if config.num_classes:
        return (), f"classes from 0 to {config.num_classes - 1}"
    if config.condition_vector:
        return (config.condition_vector,), "a vector for each image"
    if config.condition_map:
        return (*image_shape[:2], config.condition_map), "a map for each image"
    return (), ""


def numbered(condition: Any, class_names: Sequence[str]) -> Any:
    """Returns a condition in which names of classes, `[B]` strings, have become their numbers.

    Raises:
        UserError: There is no class of such a name.
    """
    if condition is None or isinstance(condition, Array):
        return condition
    names = _array(condition, "condition")
    objects = names.dtype.kind == "O" and all(isinstance(name, str) for name in names.ravel())
    if objects or names.dtype.kind == "T":
        names = names.astype(str)  # As pandas keeps text.
    if names.dtype.kind != "U":
        return names
    unknown = sorted(set(names.ravel().tolist()) - set(class_names))
    if unknown:
        known = f"are {', '.join(class_names)}" if class_names else "of this model have no names"
        raise UserError(f"there is no class {unknown[0]!r}: the classes {known}")
    numbers = {name: number for number, name in enumerate(class_names)}
    found = np.array([numbers[name] for name in names.ravel().tolist()], np.int32)
    return found.reshape(names.shape)


def check_key(key: Any) -> None:
    """Raises a `UserError` unless `key` is one of `jax.random`."""
    typed = isinstance(key, Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    raw = isinstance(key, Array) and key.dtype == jnp.uint32 and key.shape == _raw_key_shape()
    if not (typed and key.ndim == 0) and not raw:
        raise UserError(f"key must be one of jax.random, such as jax.random.key(0), got {key!r}")


def _raw_key_shape() -> tuple[int, ...]:
    """Returns the shape of the numbers of a key of the default kind."""
    return jax.eval_shape(jax.random.PRNGKey, 0).shape


def _array(value: Any, name: str) -> Any:
    """Returns an array of JAX as it is, and of anything else one of NumPy that JAX can take."""
    if isinstance(value, Array):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise UserError(f"{name} must be an array, got {type(value).__name__}: {error}") from error
    if array.dtype == np.longdouble:
        return array.astype(np.float64)
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _is_whole(array: Any) -> bool:
    return jnp.issubdtype(array.dtype, jnp.integer) or array.dtype == bool


def _check_range(what: str, array: Any, count: int) -> None:
    if not has_values(array):
        return
    values = np.asarray(array)  # Operations of JAX would be traced inside `jit`.
    if values.size and (values.min() < 0 or values.max() >= count):
        raise UserError(f"{what} from 0 to {count - 1}, got {values.min()} to {values.max()}")


def _check_finite(name: str, array: Any, dtype: Any) -> None:
    """Checks that values are finite, also as the type `dtype` that they will have."""
    if not has_values(array):
        return
    with np.errstate(over="ignore"):
        values = np.asarray(array).astype(dtype)
    if not np.isfinite(values).all():
        raise UserError(f"{name} must have finite values, got NaN or infinity as {values.dtype}")
