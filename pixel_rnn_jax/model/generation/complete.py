"""Completion of partly known images, by ancestral sampling or sequential Monte Carlo."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from pixel_rnn_jax.model import Scale, kernels
from pixel_rnn_jax.model.generation.sample import value_uniforms
from pixel_rnn_jax.model.generation.values import Lanes, Place, for_each_value

PyTree = Any


class Completion(NamedTuple):
    """Completed images, and how well the particles fitted the known values.

    Attributes:
        images: `[B, H, W, C]`; known values are unchanged.
        log_evidence: `[B]`, an estimate of the log-probability of the known values in nats. Its
            exponential is unbiased. It is exact where all known values come first.
        effective_sample_size: `[B]`, the smallest effective sample size of the run, from 1 to
            `particles`. A small one means that few particles fit the known values.

    >>> images, known = np.zeros((2, 8, 8, 1), int), np.arange(64).reshape(8, 8) < 32
    >>> prnn.load("digits").complete(jax.random.key(0), images, known).log_evidence.shape
    (2,)
    """

    images: Array
    log_evidence: Array
    effective_sample_size: Array


def is_exact(scales: Sequence[Scale], known: ArrayLike) -> bool:
    """Whether every unknown value comes after all known ones in the model's generation order.

    `known` are booleans `[H, W, C]` or `[B, H, W, C]`.
    """
    values = np.asarray(known)
    values = values if values.ndim == 4 else values[None]
    # In generation order; the plain form draws some twice.
    drawn = [scale.subsample(values)[:, ~scale.copied] for scale in scales]
    order = np.concatenate([part.reshape(len(values), -1) for part in drawn], axis=1)
    return bool((order[:, :-1] >= order[:, 1:]).all())


def complete(
    scales: Sequence[Scale],
    params: PyTree,
    key: Array,
    indices: Array,
    images: Array,
    known: Array,
    condition: Array | None,
    *,
    particles: int,
) -> Completion:
    """Draws the unknown values of images, `[B, H, W, C]`; traceable. `indices` number them, `[B]`.

    With one particle each unknown value is drawn given all values before it. With more, one of the
    completions by `particle_filter` is returned.
    """

    def one(arguments: Any) -> Completion:
        index, image, known, condition = arguments
        filter_key, choice_key = jax.random.split(jax.random.fold_in(key, index))
        completions, weights = particle_filter(
            scales, params, filter_key, image, known, condition, particles
        )
        choice = jax.random.categorical(choice_key, weights.log_weights)
        return Completion(completions[choice], weights.log_evidence, weights.effective_sample_size)

    if particles > 1:
        return lax.map(one, (indices, images, known, condition))

    uniforms = value_uniforms(scales, key, indices)
    values_at = _values_at(scales, uniforms, images, known)

    def choose(total: Array, outputs: Array, place: Place) -> tuple[Array, Array]:
        values, log_prob = values_at(outputs, place)
        return total + log_prob, values

    lanes, zeros = indices.shape[0], jnp.zeros(indices.shape, uniforms[0].dtype)
    total = kernels.varying_alike(zeros, (uniforms, images, known))
    completed, total = for_each_value(
        scales, params, choose, total, lanes=lanes, condition=condition, images=images, known=known
    )
    return Completion(completed, total, jnp.ones_like(total))


def _values_at(
    scales: Sequence[Scale], uniforms: Sequence[Array], images: Array, known: Array
) -> Callable[[Array, Place], tuple[Array, Array]]:
    """Returns a function from the outputs at a place to the values there and their evidence.

    The evidence of a known value is its log-probability, unless an earlier scale gives it; all
    others have 0. With `model.total`, draws keep the sum of the later known values reachable, and
    the log-probability of that restriction is added to the evidence. `images` and `known` may lack
    the batch axis: one image for all lanes.
    """
    likelihood = scales[-1].network.likelihood

    def sum_after(x: Array) -> Array:
        flat = x.reshape(*x.shape[:-3], math.prod(x.shape[-3:]))
        return (flat.sum(-1, keepdims=True) - jnp.cumsum(flat, axis=-1)).reshape(x.shape)

    later, free = sum_after(jnp.where(known, images, 0)), sum_after(1 - known.astype(jnp.int32))

    def values_at(outputs: Array, place: Place) -> tuple[Array, Array]:
        stride = scales[place.scale].stride
        at = (..., stride * place.row, stride * place.column, place.channel)
        uniform = uniforms[place.scale][:, place.row, place.column, place.channel]
        allowed, total = outputs, scales[place.scale].network.total
        if total is not None and place.remaining is not None:
            allowed = total.restrict(outputs, place.remaining - later[at], free[at])
        drawn = likelihood.draw(allowed, uniform, jnp.ones((), uniform.dtype))
        values = jnp.where(known[at], images[at], drawn.astype(images.dtype))
        evidence = likelihood.log_prob(outputs, values)
        others = 0 if total is None else evidence - likelihood.log_prob(allowed, values)
        return values, jnp.where(place.copied, 0, jnp.where(known[at], evidence, others))

    return values_at


class Weights(NamedTuple):
    """The weights of several completions of one image."""

    log_weights: Array  # [particles]; at the end their exponentials add up to 1.
    log_evidence: Array  # Logarithm of an unbiased estimate of p(known), in nats.
    effective_sample_size: Array  # The smallest so far.


def particle_filter(
    scales: Sequence[Scale],
    params: PyTree,
    key: Array,
    image: Array,
    known: Array,
    condition: Array | None,
    particles: int,
) -> tuple[Array, Weights]:
    """Runs sequential Monte Carlo over the pixels of one image; traceable.

    Each particle is a completion `[H, W, C]`. Its unknown values are drawn from the model, and the
    probabilities of the known ones are its weight. After a pixel that leaves an effective sample
    size below half the number of particles, they are resampled (systematic resampling).
    """
    values_key, resampling_key = jax.random.split(key)
    dtype = scales[-1].network.param_dtype
    uniforms = value_uniforms(scales, values_key, jnp.arange(particles))
    offsets = [
        jax.random.uniform(jax.random.fold_in(resampling_key, number), scale.copied.shape, dtype)
        for number, scale in enumerate(scales)
    ]
    values_at = _values_at(scales, uniforms, image, known)

    def choose(weights: Weights, outputs: Array, place: Place) -> tuple[Weights, Array]:
        values, log_prob = values_at(outputs, place)
        return weights._replace(log_weights=weights.log_weights + log_prob), values

    def end_pixel(weights: Weights, lanes: Lanes, place: Place) -> tuple[Weights, Lanes]:
        logs = weights.log_weights
        size = jnp.nan_to_num(jnp.exp(2 * jax.nn.logsumexp(logs) - jax.nn.logsumexp(2 * logs)))
        smallest = jnp.minimum(weights.effective_sample_size, size)
        weights = weights._replace(effective_sample_size=smallest)
        offset = offsets[place.scale][place.row, place.column]
        return lax.cond(
            size < particles / 2, _resampled, lambda *same: same[:2], weights, lanes, offset
        )

    zero = jnp.zeros((), dtype)
    start = Weights(jnp.zeros(particles, dtype), zero, zero + particles)
    if condition is not None:
        condition = jnp.broadcast_to(condition, (particles, *condition.shape))
    values, weights = for_each_value(
        scales,
        params,
        choose,
        kernels.varying_alike(start, (uniforms, image, known)),
        lanes=particles,
        condition=condition,
        end_pixel=end_pixel,
        images=image[None],
        known=known[None],
    )
    log_sum = jax.nn.logsumexp(weights.log_weights)
    return values, _weighted(weights, weights.log_weights - log_sum)


def _resampled(weights: Weights, lanes: Lanes, offset: Array) -> tuple[Weights, Lanes]:
    """Draws as many lanes again in proportion to their weights, and makes the weights equal."""
    logs = weights.log_weights
    cumulative, particles = jnp.cumsum(jnp.exp(logs - jax.nn.logsumexp(logs))), len(logs)
    positions = (jnp.arange(particles) + offset) / particles * cumulative[-1]
    ancestors = jnp.searchsorted(cumulative, positions, side="right")
    ancestors = jnp.clip(ancestors, max=particles - 1)
    lanes = jax.tree.map(lambda leaf: leaf[ancestors], lanes)
    return _weighted(weights, jnp.zeros_like(logs)), lanes


def _weighted(weights: Weights, log_weights: Array) -> Weights:
    """Sets new weights, and multiplies the evidence by the mean of the old ones."""
    log_sum = weights.log_evidence + jax.nn.logsumexp(weights.log_weights)
    evidence = log_sum - math.log(len(log_weights))
    return weights._replace(log_weights=log_weights, log_evidence=evidence)
