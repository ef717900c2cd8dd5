"""Ancestral sampling: every value is drawn given all values before it."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pixel_rnn_jax.model import Scale, kernels
from pixel_rnn_jax.model.generation.values import Place, for_each_value

PyTree = Any


def sample(
    scales: Sequence[Scale],
    params: PyTree,
    key: Array,
    indices: Array,
    condition: Array | None,
    temperature: Array,
    *,
    with_log_prob: bool = False,
) -> tuple[Array, Array]:
    """Draws the images `indices`, `[B]`, of a key, `[B, H, W, C]`; traceable.

    With `with_log_prob` it also returns the log-probabilities `[B]` of the draws, else zeros.
    """
    likelihood, uniforms = scales[-1].network.likelihood, value_uniforms(scales, key, indices)

    def choose(total: Array, outputs: Array, place: Place) -> tuple[Array, Array]:
        uniform = uniforms[place.scale][:, place.row, place.column, place.channel]
        values = likelihood.draw(outputs, uniform, temperature)
        if with_log_prob:
            log_prob = likelihood.log_prob_of_draw(outputs, values, temperature)
            total = total + jnp.where(place.copied, 0, log_prob)
        return total, values

    zeros = jnp.zeros(indices.shape, scales[-1].network.param_dtype)
    total = kernels.varying_alike(zeros, (uniforms, temperature))
    return for_each_value(
        scales, params, choose, total, lanes=indices.shape[0], condition=condition
    )


def value_uniforms(scales: Sequence[Scale], key: Array, indices: Array) -> list[Array]:
    """Returns uniform numbers for all values of images `indices`, `[B, H, W, C]` for each scale.

    An image's numbers depend only on the key, its index and the number of the scale. They lie
    strictly between 0 and 1; a 0 would select level 0 even at probability 0.
    """
    fold_in, dtype = jax.random.fold_in, scales[-1].network.param_dtype
    half = jnp.finfo(dtype).eps / 2  # JAX's numbers are multiples of eps, from 0 to 1 - eps.

    # Under `vmap`, keys of other kinds than the default one give numbers that depend on the batch.
    default = jax.random.key_impl(key) == "threefry2x32"

    def draw(number: int, shape: tuple[int, int, int]) -> Array:
        def of_image(index: Array) -> Array:
            return jax.random.uniform(fold_in(fold_in(key, index), number), shape, dtype)

        return (jax.vmap(of_image)(indices) if default else jax.lax.map(of_image, indices)) + half

    return [draw(i, scale.network.image_shape) for i, scale in enumerate(scales)]
