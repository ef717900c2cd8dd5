"""Completion of partly known images, by ancestral sampling or sequential Monte Carlo."""

import functools
import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.typing import ArrayLike

from pixel_rnn_jax.data import Batch, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.decode import Lanes, Place, decode
from pixel_rnn_jax.generation.sample import draw_unknown, in_batches, value_uniforms
from pixel_rnn_jax.models import PixelRNN

PyTree = Any


@dataclass(frozen=True)
class Completion:
    """Completed images, and how well the particles fitted the known values.

    Attributes:
        images: `[B, H, W, C]`; known values are unchanged.
        log_prob_known: `[B]`, an estimate of the log-probability of the known values in nats. Its
            exponential is unbiased. It is exact where all known values come first.
        effective_sample_size: `[B]`, the smallest effective sample size of the run, from 1 to
            `particles`. A small one means that few particles fit the known values.
    """

    images: np.ndarray
    log_prob_known: np.ndarray
    effective_sample_size: np.ndarray


def is_exact(model: PixelRNN, known: ArrayLike) -> bool:
    """Whether every unknown value comes after all known ones in the model's generation order.

    `known` are booleans `[H, W, C]` or `[B, H, W, C]`.
    """
    values = np.asarray(known)
    values = values if values.ndim == 4 else values[None]
    # In generation order; the plain form draws some twice.
    drawn = [scale.subsample(values)[:, ~scale.given] for scale in model.scales]
    order = np.concatenate([part.reshape(len(values), -1) for part in drawn], axis=1)
    return bool((order[:, :-1] >= order[:, 1:]).all())


def complete(
    model: PixelRNN,
    params: PyTree,
    key: Array,
    batch: Batch,
    known: np.ndarray,
    *,
    particles: int = 1,
) -> Completion:
    """Draws the unknown values of images given the known ones, as `ImageModel.complete` describes.

    With one particle each unknown value is drawn given all values before it, which is exact if
    `is_exact`. With more, the particles of `particle_filter` are drawn for each image, and one of
    them is returned. Its distribution tends to the exact one as their number grows.

    Raises:
        UserError: There are no particles, or the model is a density.
    """
    if not model.likelihood.discrete:
        raise UserError("a continuous model completes no images: use one with discrete outputs")
    if particles < 1:
        raise UserError(f"particles must be at least 1, got {particles}")
    batch = batch._replace(images=np.where(known, batch.images, 0).astype(np.int32))
    if particles == 1:
        completed, log_probs = draw_unknown(model, params, key, batch, known)
        log_prob_known = np.where(known, log_probs, 0).sum(axis=(1, 2, 3))
        return Completion(completed, log_prob_known, np.ones(len(completed)))
    completed, log_prob_known, sizes = in_batches(
        functools.partial(_complete_one, model, particles),
        (params, key),
        (np.arange(len(batch.images)), batch, known),
        lanes=1,
        progress="completing",
    )
    return Completion(completed.astype(value_dtype(model.levels)), log_prob_known, sizes)


def _complete_one(model: PixelRNN, particles: int, common: PyTree, rows: PyTree) -> PyTree:
    """Completes the one image of a batch; traceable."""
    (params, key), (index, one, known) = common, jax.tree.map(lambda x: x[0], rows)
    filter_key, choice_key = jax.random.split(jax.random.fold_in(key, index))
    values, found = particle_filter(model, params, filter_key, one, known, particles)
    choice = jax.random.categorical(choice_key, found.log_weights)
    result = values[choice], found.log_evidence, found.effective_sample_size
    return jax.tree.map(lambda x: x[None], result)


class Particles(NamedTuple):
    """The weights of several completions of one image.

    Attributes:
        log_weights: `[particles]`; at the end their exponentials add up to 1.
        log_evidence: The logarithm of an unbiased estimate of p(known), in nats.
        effective_sample_size: The smallest so far.
    """

    log_weights: Array
    log_evidence: Array
    effective_sample_size: Array


def particle_filter(
    model: PixelRNN, params: PyTree, key: Array, one: Batch, known: Array, particles: int
) -> tuple[Array, Particles]:
    """Runs sequential Monte Carlo over the pixels of one image; traceable.

    Each particle is a completion. Its unknown values are drawn from the model, and the
    probabilities of the known ones are its weight. After a pixel that leaves an effective sample
    size below half the number of particles, they are resampled (systematic resampling). The image
    `one` is `[H, W, C]` integers with its class, and `known` are `[H, W, C]` booleans.

    Returns:
        The completions `[particles, H, W, C]` and their weights.
    """
    values_key, resampling_key = jax.random.split(key)
    dtype = jnp.result_type(float)
    image, known = jnp.asarray(one.images), jnp.asarray(known)
    uniforms = value_uniforms(model, values_key, jnp.arange(particles))
    offsets = [
        jax.random.uniform(jax.random.fold_in(resampling_key, number), scale.given.shape, dtype)
        for number, scale in enumerate(model.scales)
    ]

    def choose(found: Particles, outputs: Array, place: Place) -> tuple[Particles, Array]:
        stride = model.scales[place.scale].stride
        at = (stride * place.row, stride * place.column, place.channel)
        uniform = uniforms[place.scale][:, place.row, place.column, place.channel]
        drawn = model.likelihood.draw(outputs, uniform, jnp.ones((), dtype))
        values = jnp.where(known[at], image[at], drawn.astype(image.dtype))
        counted = known[at] & jnp.logical_not(place.given)
        weights = jnp.where(counted, model.likelihood.log_prob(outputs, values), 0)
        return found._replace(log_weights=found.log_weights + weights), values

    def end_pixel(found: Particles, lanes: Lanes, place: Place) -> tuple[Particles, Lanes]:
        weights = found.log_weights
        size = jnp.exp(2 * jax.nn.logsumexp(weights) - jax.nn.logsumexp(2 * weights))
        smallest = jnp.minimum(found.effective_sample_size, size)
        found = found._replace(effective_sample_size=smallest)
        offset = offsets[place.scale][place.row, place.column]
        return lax.cond(
            size < particles / 2, _resampled, lambda *same: same[:2], found, lanes, offset
        )

    zero = jnp.zeros((), dtype)
    values, found = decode(
        model,
        params,
        choose,
        Particles(jnp.zeros(particles, dtype), zero, zero + particles),
        lanes=particles,
        labels=None if one.labels is None else jnp.broadcast_to(one.labels, particles),
        dtype=image.dtype,
        end_pixel=end_pixel,
    )
    log_sum = jax.nn.logsumexp(found.log_weights)
    return values, _weighted(found, found.log_weights - log_sum)


def _resampled(found: Particles, lanes: Lanes, offset: Array) -> tuple[Particles, Lanes]:
    """Draws as many lanes again in proportion to their weights, and makes the weights equal."""
    particles = len(found.log_weights)
    cumulative = jnp.cumsum(jnp.exp(found.log_weights - jax.nn.logsumexp(found.log_weights)))
    positions = (jnp.arange(particles) + offset) / particles * cumulative[-1]
    ancestors = jnp.searchsorted(cumulative, positions, side="right")
    ancestors = jnp.clip(ancestors, max=particles - 1)
    lanes = jax.tree.map(lambda leaf: leaf[ancestors], lanes)
    return _weighted(found, jnp.zeros_like(found.log_weights)), lanes


def _weighted(found: Particles, log_weights: Array) -> Particles:
    """Sets new weights, and multiplies the evidence by the mean of the old ones."""
    log_sum = found.log_evidence + jax.nn.logsumexp(found.log_weights)
    evidence = log_sum - math.log(len(log_weights))
    return found._replace(log_weights=log_weights, log_evidence=evidence)
