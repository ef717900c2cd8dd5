"""Checks of the arguments of a model: shapes and types always, values where there are any.

The arrays may be tracers of `jit`, `grad` or `vmap`, which have no values. What does not fit is
named by a `UserError`.
"""

import math
import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax.model.config import ModelConfig, check
from pixel_rnn_jax.model.likelihoods import Softmax, likelihood_class
from pixel_rnn_jax.system.errors import UserError

MOST_LEVELS, MOST_VALUES = 2**24, 2**28
"""Float32 tells no more integers apart; larger images would need more memory than there is."""
Shape = tuple[int, int, int]


def has_values(array: Any) -> bool:
    """Tells an array with values from a tracer."""
    return not isinstance(array, jax.core.Tracer)


def all_values(arrays: Any) -> bool:
    """Whether all leaves of a tree have values, and results computed from them will have."""
    # Inside `jit` an operation on arrays that have values gives a tracer.
    return all(map(has_values, (*jax.tree.leaves(arrays), jnp.zeros(()))))


def is_integer(value: Any) -> bool:
    """Whether a value is an integer of Python or NumPy, and no boolean."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def check_key(key: Any) -> None:
    """Refuses a seed in place of a random key."""
    dtype = getattr(key, "dtype", np.dtype(object))
    if not (jnp.issubdtype(dtype, jax.dtypes.prng_key) or dtype == np.uint32):
        raise UserError(f"key must be a random key, such as jax.random.key(0), got {key!r}")


def check_format(
    config: ModelConfig, image_shape: Any, levels: Any, mean: Any, std: Any
) -> dict[str, Any]:
    """Checks the format of a model's images; returns it in Python's numbers, for their digest."""
    positive = len(image_shape) == 3 and all(is_integer(n) and n > 0 for n in image_shape)
    if not positive or math.prod(image_shape) > MOST_VALUES:
        form = f"three positive integers (H, W, C) with a product of at most {MOST_VALUES:,}"
        raise UserError(f"image_shape must be {form}, got {image_shape}")
    likelihood = likelihood_class(config)
    for field in ("scales", "input") if not likelihood.discrete else ():
        is_default = getattr(config, field) == getattr(ModelConfig, field)
        check(config, f"model.{field}", "keep its default for a density, model.output", is_default)
    real = likelihood.standardised
    if not is_integer(levels) or not (levels == 0 if real else 2 <= levels <= MOST_LEVELS):
        choice = "0, for real values" if real else f"an integer from 2 to {MOST_LEVELS:,}"
        raise UserError(f'levels must be {choice}, for output "{config.output}"; got {levels}')
    most = (levels - 1) * math.prod(image_shape) if likelihood is Softmax else 0
    rule = f"be at most {most}, and 0 for other outputs than softmax"
    check(config, "model.total", rule, config.total <= most)
    count = image_shape[-1] if real else 0
    mean, std = tuple(map(float, mean)), tuple(map(float, std))
    mean, std = mean or (0.0,) * count, std or (1.0,) * count
    for name, values, limit in (("mean", mean, -math.inf), ("std", std, 0.0)):
        if len(values) != count or not all(limit < value < math.inf for value in values):
            raise UserError(f"{name} must be {count} finite numbers above {limit}, got {values}")
    shape = tuple(map(int, image_shape))
    return {"image_shape": shape, "levels": int(levels), "mean": mean, "std": std}


def check_images(
    model: Any, images: Any, condition: Any, known: Any = None
) -> tuple[Array, Array | None]:
    """Checks images `[B, H, W, C]` for a `PixelRNN`, and their condition; returns JAX arrays.

    Images become 0 where they are not `known`. A discrete model takes integers from 0 to K - 1, a
    density finite floats; with `output="logistic_mixture"` level x is the interval [x, x + 1).
    """
    images, config = _array(images), model.config
    channels, levels = model.image_shape[-1], model.levels
    if images.ndim == 3 and channels == 1:  # One channel may be left out.
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] != channels:
        raise UserError(f"images must have shape [B, H, W, {channels}], got {list(images.shape)}")
    model.sized(*images.shape[1:3])  # Refuses what the scales or a total do not fit.
    discrete = likelihood_class(config).discrete
    values = f"floats from 0 to {levels} (see dequantize)" if levels else "floats"
    fits = jnp.issubdtype(images.dtype, jnp.floating)
    if discrete:
        values = f"integers from 0 to {levels - 1} (unscaled)"
        fits = jnp.issubdtype(images.dtype, jnp.integer) or images.dtype == bool
    if not fits:
        raise UserError(f"images must be {values}, got {images.dtype} values")
    if known is not None:
        # By NumPy where that is possible, since inside `jit` an operation of JAX leaves no values
        # to check, and outside it would cut off integers of 64 bits.
        numpy = isinstance(images, np.ndarray) and has_values(known)
        images = (np if numpy else jnp).where(known, images, images.dtype.type(0))
    _check_values("images", images, levels if discrete else images.dtype)
    if config.total and has_values(images) and has_values(known):
        sums = np.asarray(images).sum(axis=(1, 2, 3), dtype=np.int64)
        free = 0 if known is None else (levels - 1) * np.logical_not(known).sum(axis=(1, 2, 3))
        wrong = (sums > config.total) | (sums + free < config.total)
        if wrong.any():
            raise UserError(f"images must have model.total={config.total}, got {sums[wrong][0]}")
    return jnp.asarray(images), _check_condition(config, condition, *images.shape[:3])


def check_completion(
    model: Any, key: Any, images: Any, known: Any, condition: Any, particles: Any
) -> tuple[Array, Array, Array | None]:
    """Checks the arguments of `complete`; returns images, 0 where unknown, mask and condition."""
    check_key(key)
    if not is_integer(particles) or particles < 1:
        raise UserError(f"particles must be an integer of at least 1, got {particles!r}")
    known = np.asarray(known) if has_values(known) else known
    count, *size = np.shape(images)[:3]
    shapes = [(*size, *end) for end in ((), (model.image_shape[-1],))]
    shapes += [(count, *size, channels) for channels in (1, model.image_shape[-1])]
    if known.dtype != bool or known.shape not in shapes:
        got = f"{known.dtype} {known.shape}"
        raise UserError(f"known must be booleans of one of the shapes {shapes}, got {got}")
    known = known[..., None] if known.ndim == 2 else known
    known = known[None] if known.ndim == 3 else known
    images, condition = check_images(model, images, condition, known)
    return images, jnp.broadcast_to(known, images.shape), condition


def _check_condition(
    config: ModelConfig, condition: Any, count: Any, height: int, width: int
) -> Array | None:
    """Checks the condition of `count` images and returns it, None for a model without one."""
    wanted, classes = config.condition, config.condition.classes
    if not wanted.size and condition is None:
        return None
    condition, shape = _array(condition), (count, *wanted.shape((height, width, 1)))
    if classes and condition.ndim == 0 and condition.dtype != object:  # One class for all.
        condition = (np if has_values(condition) else jnp).broadcast_to(condition, (count,))
    whole = jnp.issubdtype(condition.dtype, jnp.integer)
    if not wanted.size or condition.shape != shape or (classes and not whole):
        form = "None: this model has none"
        if wanted.size:
            form = f"{'integers' if classes else 'numbers'} of shape {shape} for {wanted}"
        missing = condition.dtype == object and condition.ndim == 0
        got = "none: it is missing" if missing else f"{condition.dtype} {condition.shape}"
        raise UserError(f"condition must be {form}, got {got}")
    dtype = jnp.dtype("int32") if classes else jnp.promote_types(config.dtype, jnp.float32)
    _check_values("condition", condition, classes or dtype)
    return jnp.asarray(condition).astype(dtype)


def no_condition(config: ModelConfig, image_shape: Shape, dtype: Any) -> Array | None:
    """Returns zeros in the form of the condition of one image, None for a model without one."""
    wanted = config.condition
    shape = 1, *wanted.shape(image_shape)
    return jnp.zeros(shape, jnp.int32 if wanted.classes else dtype) if wanted.size else None


def class_numbers(condition: Any, class_names: Sequence[str]) -> Any:
    """Returns a condition in which names of classes, `[B]` strings, have become their numbers."""
    names = _array(condition)
    if names.dtype.kind != "U":
        return condition
    unknown = sorted(set(names.ravel().tolist()) - set(class_names))
    if unknown:
        choices = ", ".join(class_names) or "numbers, since its classes have no names"
        raise UserError(f"condition has no class {unknown[0]!r}: this model takes {choices}")
    numbers = {name: number for number, name in enumerate(class_names)}
    return np.vectorize(numbers.get, otypes=[np.int32])(names)


def check_sampling(
    model: Any, key: Any, n: Any, condition: Any, temperature: Any
) -> tuple[Array | None, Array]:
    """Checks the arguments of `sample`; returns the condition and the temperature."""
    check_key(key)
    if not jax.export.is_symbolic_dim(n) and not (is_integer(n) and n >= 0):
        raise UserError(f"n must be an integer of at least 0 (static under jax.jit), got {n!r}")
    known = has_values(temperature)
    value: Any = np.asarray(temperature) if known else temperature
    number, is_density = jnp.issubdtype(value.dtype, jnp.number), not model.likelihood.discrete
    fits = not known or (value == 1 if is_density else 0 <= value < math.inf)
    if value.ndim or not number or not fits:
        rule = "1 for a density" if is_density else "a finite number of at least 0"
        raise UserError(f"temperature must be {rule}, got {temperature!r}")
    divisor = jnp.asarray(temperature, jnp.promote_types(model.config.dtype, jnp.float32))
    return _check_condition(model.config, condition, n, *model.image_shape[:2]), divisor


def _array(value: Any) -> Any:
    """Returns an array of JAX as it is, anything else as one of NumPy."""
    return value if isinstance(value, Array) else np.asarray(value)


def _check_values(name: str, array: Any, limit: Any) -> None:
    """Checks that values are below `limit`, or finite if it is a type of float."""
    if not has_values(array):
        return
    values = np.asarray(array)  # Operations of JAX would be traced inside `jit`.
    if isinstance(limit, int):
        if values.size and (values.min() < 0 or values.max() >= limit):
            limits = f"{values.min()} to {values.max()}"
            raise UserError(f"{name} must be from 0 to {limit - 1}, got {limits}")
        return
    with np.errstate(over="ignore"):
        values = values.astype(jax.dtypes.canonicalize_dtype(limit))
    if not np.isfinite(values).all():
        raise UserError(f"{name} must have finite values, got NaN or infinity as {values.dtype}")
