"""Generation through the incremental form: every pixel is computed once, not the image anew."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from pixel_rnn_jax import joint, parallel, terminal
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.images import Batch, value_dtype
from pixel_rnn_jax.layers.state import Context
from pixel_rnn_jax.models import Model, PixelRNN, scales

PyTree = Any

CPU_LANES = 8
ACCELERATOR_LANES = 128
"""Images that a device generates at a time, always: what is missing is filled up and dropped.

Another number of lanes is another program, whose last bits may differ; and once in a long while
they decide a value. This way an image does not depend on what else is generated with it.
"""


def sample(
    module: Model,
    params: PyTree,
    key: Array,
    n: int,
    *,
    labels: np.ndarray | None = None,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws images from a model.

    Image number i depends on the key, i, its label and the parameters alone: not on n, and not on
    the number of devices that share the work.

    Args:
        module: The model.
        params: Its parameters.
        key: A key of `jax.random`.
        n: Number of images.
        labels: `[n]` classes, for a model with classes.
        temperature: What logits are divided by; 0 takes the most probable value of each pixel.

    Returns:
        The images `[n, H, W, C]` and their log-probabilities `[n]` in nats (under the model itself,
        whatever the temperature). A density's images are floats.

    Raises:
        UserError: n or the temperature is negative; or the model is a density, and the temperature
            is not 1.
    """
    if n < 0:
        raise UserError(f"n must be at least 0, got {n}")
    if not temperature >= 0:
        raise UserError(f"temperature must be at least 0, got {temperature}")
    if temperature != 1 and not module.likelihood.discrete:
        raise UserError(
            f"temperature must be 1 for a continuous model, which has no logits, got {temperature}"
        )
    shape = (n, *module.image_shape)
    images = np.zeros(shape, np.int32 if module.likelihood.discrete else np.float32)
    images, log_probs = in_lanes(
        module, params, key, images, np.zeros(shape, bool), labels=labels, temperature=temperature
    )
    if module.config.plain:  # Not of the small images that were drawn on the way.
        log_probs = _scored(module, params, Batch(images, labels))
    return images, log_probs.sum(axis=(1, 2, 3))


def _scored(module: Model, params: PyTree, batch: Batch) -> np.ndarray:
    """Returns the log-probability of each value of images, some at a time."""
    log_prob = jax.jit(functools.partial(joint.log_prob, module))
    parts = [
        jax.tree.map(lambda array, i=i: array[i : i + CPU_LANES], batch)
        for i in range(0, max(len(batch.images), 1), CPU_LANES)
    ]
    return np.concatenate([np.asarray(log_prob(params, part)) for part in parts])


def as_levels(module: Model, images: np.ndarray) -> np.ndarray:
    """Returns images as integers from 0 to K - 1; values of a density lose what is behind them."""
    if module.likelihood.discrete:
        return images
    return np.clip(np.floor(images), 0, module.levels - 1).astype(value_dtype(module.levels))


def every_class(n: int, classes: int) -> np.ndarray | None:
    """Returns `[n]` labels in increasing order, as many of each class as of any; None for none."""
    return np.arange(n) * classes // n if classes else None


def in_lanes(
    module: Model,
    params: PyTree,
    key: Array,
    images: np.ndarray,
    known: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the values that are not known, each given all that come before it.

    Args:
        module: The model.
        params: Its parameters.
        key: A key of `jax.random`; image i uses what `fold_in(key, i)` gives.
        images: `[B, H, W, C]` values.
        known: `[B, H, W, C]` booleans; where True the value of `images` is taken.
        labels: `[B]` classes, for a model with classes.
        temperature: What logits are divided by before a value is drawn; 0 takes the likeliest.

    Returns:
        The images, and the log-probability of each of their values in nats, both `[B, H, W, C]`.
    """
    lanes = CPU_LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES
    devices = max(1, min(jax.local_device_count(), math.ceil(len(images) / lanes)))
    size = devices * lanes
    mesh = parallel.own_mesh(devices)
    greedy = np.float32(temperature) < np.finfo(np.float32).tiny
    draw = _compiled(module, mesh, bool(greedy))
    common = params, key, jnp.asarray(1.0 if greedy else temperature)
    common = jax.device_put(common, parallel.everywhere(mesh))
    drawn, log_probs = [], []
    starts = range(0, max(len(images), 1), size)
    progress = terminal.bar(starts, len(starts), "generating", "batch")
    for start in progress:
        indices = np.arange(start, start + size)
        batch = [
            None if array is None else _filled(array[start : start + size], size)
            for array in (images, known, labels)
        ]
        by_scale, terms = draw(common, (indices, *batch))
        terminal.show_time(progress, (by_scale, terms))
        drawn.append(np.asarray(by_scale[-1]))
        log_probs.append(np.asarray(terms))
    count = len(images)
    result = np.concatenate(drawn)[:count]
    if module.likelihood.discrete:
        result = result.astype(value_dtype(module.levels))
    return result, np.concatenate(log_probs)[:count]


def _filled(batch: np.ndarray, size: int) -> np.ndarray:
    return np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1))


@functools.lru_cache(maxsize=16)
def _compiled(module: Model, mesh: Mesh, greedy: bool) -> Callable[..., Any]:
    """Returns the compiled loop over all pixels, with the lanes spread over a mesh."""

    def run(common: Any, batch: Any) -> tuple[list[Array], Array]:
        params, key, temperature = common
        return generate(module, params, key, None if greedy else temperature, *batch)

    return parallel.map_batch(run, mesh)


def generate(
    module: Model,
    params: PyTree,
    key: Array,
    temperature: Array | None,
    indices: Array,
    images: Array,
    known: Array,
    labels: Array | None = None,
) -> tuple[list[Array], Array]:
    """Generates images scale by scale, as one traceable function.

    Args:
        module: The model.
        params: Its parameters.
        key: A key of `jax.random`.
        temperature: See `pixel`.
        indices: `[B]`, the numbers of the images, which with the key decide what is drawn.
        images: `[B, H, W, C]` values.
        known: `[B, H, W, C]` booleans: which of them are taken.
        labels: `[B]` classes, for a model with classes.

    Returns:
        The image of each scale, coarsest first, the last one `[B, H, W, C]`; and the term of each
        value in nats, `[B, H, W, C]`, as `joint.log_prob` has it. (In the plain form they are those
        of all images that were drawn, whether the last one agrees with the others or not.)
    """
    by_scale: list[Array] = []
    total = jnp.zeros(images.shape, jnp.result_type(float))
    for number, scale in enumerate(scales(module)):
        network, own = scale.network, scale.select(params)
        taken, values = scale.subsample(known), scale.subsample(images)
        coarse = by_scale[-1] if by_scale else None
        if scale.given.any():
            given = jnp.asarray(scale.given)[None, ..., None]
            taken, values = taken | given, jnp.where(given, scale.put(by_scale[-1]), values)
        uniforms = value_uniforms(key, indices, number, network.image_shape)
        condition = condition_on(network, own, labels, coarse)
        state = network.apply({"params": own}, len(images), method="init_state")
        by_pixel = [x.transpose(1, 2, 0, 3) for x in (values, taken, uniforms)]
        by_row = None if condition is None else condition.swapaxes(0, 1)

        def one_row(
            state: PyTree, inputs: Any, network: PixelRNN = network, own: PyTree = own
        ) -> tuple[PyTree, Any]:
            row, *by_column = inputs
            contexts: Any = network.apply({"params": own}, row, method="contexts")

            def one_pixel(state: PyTree, inputs: Any) -> tuple[PyTree, Any]:
                column, images, known, uniforms = inputs
                return pixel(
                    network, own, state, column, contexts, images, known, uniforms, temperature
                )

            columns = jnp.arange(network.image_shape[1])
            state, drawn = lax.scan(one_pixel, state, (columns, *by_column))
            return network.apply({"params": own}, state, contexts, method="end_row"), drawn

        _, drawn = lax.scan(one_row, state, (by_row, *by_pixel))
        values, terms = (x.transpose(2, 0, 1, 3) for x in drawn)
        terms = jnp.where(scale.given[None, ..., None], 0, terms)
        total = total.at[:, :: scale.stride, :: scale.stride].add(terms.astype(total.dtype))
        by_scale.append(values)
    return by_scale, total


def condition_on(
    network: PixelRNN, params: PyTree, labels: Array | None, coarse: Array | None
) -> Array | None:
    """Returns the condition of a network, `[B, H, W, h]`, or None.

    Args:
        network: The model of one scale.
        params: Its parameters.
        labels: `[B]` classes, or None.
        coarse: `[B, h, w, C]` values of the scale before, or None.
    """
    inputs = None if coarse is None else network.likelihood.inputs(coarse)
    found: Any = network.apply({"params": params}, labels, inputs, method="condition")
    if found is None:
        return None
    return jnp.broadcast_to(found, (len(found), *network.image_shape[:2], found.shape[-1]))


def value_uniforms(
    key: Array, indices: Array, scale: int, image_shape: tuple[int, int, int]
) -> Array:
    """Returns numbers from [0, 1) for every value of images `indices`, `[B, H, W, C]`.

    Those of an image depend on the key, its index and the number of the scale alone.
    """
    fold_in = jax.random.fold_in
    keys = jax.vmap(lambda index: fold_in(fold_in(key, index), scale))(indices)
    dtype = jnp.result_type(float)
    return jax.vmap(lambda key: jax.random.uniform(key, image_shape, dtype))(keys)


def pixel(
    network: PixelRNN,
    params: PyTree,
    state: PyTree,
    column: ArrayLike,
    contexts: Sequence[Context | None],
    images: Array,
    known: Array,
    uniforms: Array,
    temperature: Array | None,
) -> tuple[PyTree, tuple[Array, Array]]:
    """Draws what is not known of one pixel, channel by channel.

    Args:
        network: The model of one scale.
        params: Its parameters.
        state: Of the incremental form, after all pixels before.
        column: Of the pixel.
        contexts: Of its row.
        images: `[B, C]` values.
        known: `[B, C]` booleans: which of them are taken.
        uniforms: `[B, C]` numbers from [0, 1) that decide the others.
        temperature: Logits are divided by it; None takes the most probable value.

    Returns:
        The next state, the values `[B, C]` and their log-probabilities in nats `[B, C]`.
    """

    def apply(method: str, *args: Any) -> Any:
        return network.apply({"params": params}, *args, method=method)

    likelihood = network.likelihood
    values = jnp.zeros_like(images)
    log_probs = []
    for channel in range(images.shape[-1]):
        outputs, after = apply("step", state, likelihood.inputs(values), column, contexts)
        outputs = outputs[:, channel]
        drawn = likelihood.draw(outputs, uniforms[:, channel], temperature)
        value = jnp.where(known[:, channel], images[:, channel], drawn.astype(images.dtype))
        values = values.at[:, channel].set(value)
        log_probs.append(likelihood.log_prob(outputs, value))
    state = apply("end_pixel", after, likelihood.inputs(values), column)
    return state, (values, jnp.stack(log_probs, axis=-1))
