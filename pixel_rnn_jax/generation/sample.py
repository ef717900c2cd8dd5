"""Ancestral sampling: every value is drawn given all values before it."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh

from pixel_rnn_jax import terminal
from pixel_rnn_jax.data import Batch, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.decode import Place, decode
from pixel_rnn_jax.models import PixelRNN
from pixel_rnn_jax.runtime import devices

PyTree = Any

CPU_LANES = 8
ACCELERATOR_LANES = 128
"""Images that a device generates at a time; a smaller batch is padded.

With another number of lanes the compiled program may differ in the last bits, and so, rarely, a
value. A fixed number keeps an image independent of how many are drawn with it.
"""


def sample(
    model: PixelRNN,
    params: PyTree,
    key: Array,
    n: int,
    *,
    labels: np.ndarray | None = None,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws images as `ImageModel.sample` describes.

    Returns:
        The images `[n, H, W, C]`, and their log-probabilities `[n]` in nats, those of the model
        itself at any temperature. (In the plain multi-scale form, of the images of all scales.)

    Raises:
        UserError: n or the temperature is negative, or the temperature of a density is not 1.
    """
    if n < 0:
        raise UserError(f"n must be at least 0, got {n}")
    if not temperature >= 0:
        raise UserError(f"temperature must be at least 0, got {temperature}")
    discrete = model.likelihood.discrete
    if temperature != 1 and not discrete:
        raise UserError(
            f"temperature must be 1 for a continuous model, which has no logits, got {temperature}"
        )
    shape = (n, *model.image_shape)
    nothing = Batch(np.zeros(shape, np.int32 if discrete else np.float32), labels)
    known = np.zeros(shape, bool)
    images, terms = draw_unknown(model, params, key, nothing, known, temperature=temperature)
    return images, terms.sum(axis=(1, 2, 3))


def as_levels(model: PixelRNN, images: np.ndarray) -> np.ndarray:
    """Returns images as integers from 0 to K - 1: continuous values are floored."""
    if model.likelihood.discrete:
        return images
    return np.clip(np.floor(images), 0, model.levels - 1).astype(value_dtype(model.levels))


def every_class(n: int, classes: int) -> np.ndarray | None:
    """Returns `[n]` labels in increasing order, equally many of each class; None without any."""
    return np.arange(n) * classes // n if classes else None


def draw_unknown(
    model: PixelRNN,
    params: PyTree,
    key: Array,
    batch: Batch,
    known: np.ndarray,
    *,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the values of a batch that are not `known`, booleans `[B, H, W, C]`.

    Image i uses `fold_in(key, i)`. A temperature of 0 takes the most probable values.

    Returns:
        The images, and the log-probability of each of their values in nats, both `[B, H, W, C]`.
    """
    lanes = CPU_LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES
    greedy = bool(np.float32(temperature) < np.finfo(np.float32).tiny)
    images, terms = in_batches(
        functools.partial(_draw, model, greedy),
        (params, key, jnp.asarray(1.0 if greedy else temperature)),
        (np.arange(len(batch.images)), batch, known),
        lanes=lanes,
        progress="generating",
    )
    if model.likelihood.discrete:
        images = images.astype(value_dtype(model.levels))
    return images, terms


def in_batches(
    function: "functools.partial[Any]", common: PyTree, images: PyTree, *, lanes: int, progress: str
) -> Any:
    """Calls `function(common, images)` for some images at a time, `lanes` on each device.

    Images and results are arrays of one row for each image; the last batch is padded. A function is
    compiled once for each value of the arguments that the `partial` holds.
    """
    count = len(jax.tree.leaves(images)[0])
    mesh = devices.local_mesh(max(1, min(jax.local_device_count(), math.ceil(count / lanes))))
    run, size = _compiled(function.func, function.args, mesh), lanes * mesh.size
    common = jax.device_put(common, devices.replicated(mesh))
    starts = range(0, max(count, 1), size)
    bar = terminal.bar(starts, len(starts), progress, "batch")
    results = []
    for start in bar:
        found = run(common, jax.tree.map(lambda x, i=start: padded(x[i : i + size], size), images))
        terminal.show_time(bar, found)
        results.append(jax.tree.map(np.asarray, found))
    return jax.tree.map(lambda *parts: np.concatenate(parts)[:count], *results)


@functools.lru_cache(maxsize=32)
def _compiled(
    function: Callable[..., PyTree], static: tuple[Any, ...], mesh: Mesh
) -> Callable[[PyTree, PyTree], PyTree]:
    return devices.map_batch(functools.partial(function, *static), mesh)


def padded(array: np.ndarray, size: int) -> np.ndarray:
    """Returns `size` rows: those of the array, and zeros."""
    return np.pad(array, [(0, size - len(array))] + [(0, 0)] * (array.ndim - 1))


def _draw(model: PixelRNN, greedy: bool, common: PyTree, rows: PyTree) -> tuple[Array, Array]:
    """Draws the unknown values of a batch as `draw_unknown` describes; traceable.

    In the plain multi-scale form the term of a value is the sum over all scales that drew it.
    """
    (params, key, temperature), (indices, batch, known) = common, rows
    temperature = None if greedy else temperature
    images, uniforms = batch.images, value_uniforms(model, key, indices)

    def choose(terms: Array, outputs: Array, place: Place) -> tuple[Array, Array]:
        stride = model.scales[place.scale].stride
        at = (slice(None), stride * place.row, stride * place.column, place.channel)
        uniform = uniforms[place.scale][:, place.row, place.column, place.channel]
        drawn = model.likelihood.draw(outputs, uniform, temperature).astype(images.dtype)
        values = jnp.where(known[at], images[at], drawn)
        own = jnp.where(place.given, 0, model.likelihood.log_prob(outputs, values))
        return terms.at[at].add(own.astype(terms.dtype)), values

    terms = jnp.zeros(images.shape, jnp.result_type(float))
    lanes, dtype = len(images), images.dtype
    return decode(model, params, choose, terms, lanes=lanes, labels=batch.labels, dtype=dtype)


def value_uniforms(model: PixelRNN, key: Array, indices: Array) -> list[Array]:
    """Returns uniform numbers for all values of images `indices`, `[B, H, W, C]` for each scale.

    Those of an image depend only on the key, its index and the number of the scale.
    """
    fold_in, dtype = jax.random.fold_in, jnp.result_type(float)

    def of_scale(number: int, shape: tuple[int, int, int]) -> Array:
        keys = jax.vmap(lambda index: fold_in(fold_in(key, index), number))(indices)
        return jax.vmap(lambda key: jax.random.uniform(key, shape, dtype))(keys)

    return [of_scale(i, scale.network.image_shape) for i, scale in enumerate(model.scales)]
