"""Generation through the incremental form: every pixel is computed once, not the image anew."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from pixel_rnn_jax import likelihoods, parallel
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.images import value_dtype
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

PyTree = Any

CPU_LANES = 8
ACCELERATOR_LANES = 128
"""Images that a device generates at a time, always: what is missing is filled up and dropped.

Another number of lanes is another program, whose last bits may differ; and once in a long while
they decide a value. This way an image does not depend on what else is generated with it.
"""


def sample(
    module: PixelRNN, params: PyTree, key: Array, n: int, *, temperature: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws images from a model.

    Image number i depends on the key, i and the parameters alone: not on n, and not on the number
    of devices that share the work.

    Args:
        module: The model.
        params: Its parameters.
        key: A key of `jax.random`.
        n: Number of images.
        temperature: What logits are divided by; 0 takes the most probable value of each pixel.

    Returns:
        The images `[n, H, W, C]` and their log-probabilities `[n]` in nats (under the model itself,
        whatever the temperature).

    Raises:
        UserError: n or the temperature is negative.
    """
    if n < 0:
        raise UserError(f"n must be at least 0, got {n}")
    if not temperature >= 0:
        raise UserError(f"temperature must be at least 0, got {temperature}")
    shape = (n, *module.image_shape)
    nothing = np.zeros(shape, np.int32), np.zeros(shape, bool)
    images, log_probs = in_lanes(module, params, key, *nothing, temperature=temperature)
    return images, log_probs.sum(axis=(1, 2, 3))


def in_lanes(
    module: PixelRNN,
    params: PyTree,
    key: Array,
    images: np.ndarray,
    known: np.ndarray,
    *,
    temperature: float = 1.0,
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the values that are not known, each given all that come before it.

    Args:
        module: The model.
        params: Its parameters.
        key: A key of `jax.random`; image i uses what `fold_in(key, i)` gives.
        images: `[B, H, W, C]` integers from 0 to K - 1.
        known: `[B, H, W, C]` booleans; where True the value of `images` is taken.
        temperature: What logits are divided by before a value is drawn; 0 takes the likeliest.

    Returns:
        The images, and the log-probability of each of their values in nats, both `[B, H, W, C]`.
    """
    lanes = CPU_LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES
    devices = max(1, min(jax.device_count(), math.ceil(len(images) / lanes)))
    size = devices * lanes
    mesh = parallel.make_mesh(devices)
    greedy = np.float32(temperature) < np.finfo(np.float32).tiny
    draw = _compiled(module, mesh, bool(greedy))
    common = params, key, jnp.asarray(1.0 if greedy else temperature)
    common = jax.device_put(common, parallel.everywhere(mesh))
    drawn, log_probs = [], []
    progress = tqdm.trange(
        0,
        max(len(images), 1),
        size,
        desc="generating",
        unit="batch",
        delay=3,
        leave=False,
        disable=None,
    )
    for start in progress:
        indices = np.arange(start, start + size)
        batch = [_filled(array[start : start + size], size) for array in (images, known)]
        results = draw(common, (indices, *batch))
        drawn.append(np.asarray(results[0]).astype(value_dtype(module.levels)))
        log_probs.append(np.asarray(results[1]))
    count = len(images)
    return np.concatenate(drawn)[:count], np.concatenate(log_probs)[:count]


def _filled(batch: np.ndarray, size: int) -> np.ndarray:
    return np.pad(batch, [(0, size - len(batch))] + [(0, 0)] * (batch.ndim - 1))


@functools.lru_cache(maxsize=16)
def _compiled(module: PixelRNN, mesh: Mesh, greedy: bool) -> Callable[..., Any]:
    """Returns the compiled loop over all pixels, with the lanes spread over a mesh."""

    def run(common: Any, batch: Any) -> tuple[Array, Array]:
        params, key, temperature = common
        indices, images, known = batch
        uniforms = value_uniforms(key, indices, module.image_shape)
        state = module.apply({"params": params}, len(images), method="init_state")

        def one_pixel(state: PyTree, inputs: Any) -> tuple[PyTree, Any]:
            column, images, known, uniforms = inputs
            divisor = None if greedy else temperature
            return pixel(module, params, state, column, images, known, uniforms, divisor)

        def one_row(state: PyTree, inputs: Any) -> tuple[PyTree, Any]:
            columns = jnp.arange(module.image_shape[1])
            state, drawn = lax.scan(one_pixel, state, (columns, *inputs))
            return module.apply({"params": params}, state, method="end_row"), drawn

        by_pixel = tuple(x.transpose(1, 2, 0, 3) for x in (images, known, uniforms))
        _, drawn = lax.scan(one_row, state, by_pixel)
        values, log_probs = (x.transpose(2, 0, 1, 3) for x in drawn)
        return values, log_probs

    return parallel.map_batch(run, mesh)


def value_uniforms(key: Array, indices: Array, image_shape: tuple[int, int, int]) -> Array:
    """Returns numbers from [0, 1) for every value of images `indices`, `[B, H, W, C]`.

    Those of an image depend on the key and its index alone.
    """
    # The scale of the image; there is one.
    keys = jax.vmap(lambda index: jax.random.fold_in(jax.random.fold_in(key, index), 0))(indices)
    dtype = jnp.result_type(float)
    return jax.vmap(lambda key: jax.random.uniform(key, image_shape, dtype))(keys)


def pixel(
    module: PixelRNN,
    params: PyTree,
    state: PyTree,
    column: ArrayLike,
    images: Array,
    known: Array,
    uniforms: Array,
    temperature: Array | None,
) -> tuple[PyTree, tuple[Array, Array]]:
    """Draws what is not known of one pixel, channel by channel.

    Args:
        module: The model.
        params: Its parameters.
        state: Of the incremental form, after all pixels before.
        column: Of the pixel.
        images: `[B, C]` values.
        known: `[B, C]` booleans: which of them are taken.
        uniforms: `[B, C]` numbers from [0, 1) that decide the others.
        temperature: Logits are divided by it; None takes the most probable value.

    Returns:
        The next state, the values `[B, C]` and their log-probabilities in nats `[B, C]`.
    """

    def apply(method: str, *args: Any) -> Any:
        return module.apply({"params": params}, *args, method=method)

    values = jnp.zeros_like(images)
    log_probs = []
    for channel in range(images.shape[-1]):
        scaled = likelihoods.scale(values, module.levels)
        logits, after = apply("step", state, scaled, column)
        logits = logits[:, channel]
        if temperature is None:
            drawn = likelihoods.mode(logits)
        else:
            # From the largest down, so that no temperature makes them infinite.
            largest = logits.max(-1, keepdims=True) if logits.shape[-1] > 1 else 0
            drawn = likelihoods.draw((logits - largest) / temperature, uniforms[:, channel])
        value = jnp.where(known[:, channel], images[:, channel], drawn)
        values = values.at[:, channel].set(value)
        log_probs.append(likelihoods.log_prob(logits, value))
    state = apply("end_pixel", after, likelihoods.scale(values, module.levels), column)
    return state, (values, jnp.stack(log_probs, axis=-1))
