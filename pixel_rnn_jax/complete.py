"""Completion of partly known images, by ancestral sampling or sequential Monte Carlo."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh
from jax.typing import ArrayLike

from pixel_rnn_jax import parallel, terminal
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.images import value_dtype
from pixel_rnn_jax.models import Model, Scale, scales
from pixel_rnn_jax.sample import condition_on, in_lanes, pixel, value_uniforms

PyTree = Any


@dataclass(frozen=True)
class Completion:
    """Completed images, and how they were found.

    Attributes:
        images: `[B, H, W, C]`; what was known is unchanged.
        log_prob_known: `[B]`, an estimate of the log-probability of the known values in nats. Its
            exponential is unbiased. Where every known value comes first it is exact.
        effective_sample_size: `[B]`, the smallest that the weights of the particles had on the way,
            from 1 to `particles`. A small one means that few particles fit the known values.
    """

    images: np.ndarray
    log_prob_known: np.ndarray
    effective_sample_size: np.ndarray


def is_exact(module: Model, known: ArrayLike) -> bool:
    """Tells whether every unknown value comes after all known ones, in generation order.

    Args:
        module: The model, which decides the order: one of several scales begins with the pixels
            of the coarsest, all over the image.
        known: `[H, W, C]` or `[B, H, W, C]` booleans.
    """
    values = np.asarray(known)
    values = values[None] if values.ndim == 3 else values
    # In the order in which they are drawn; the plain form draws some twice.
    drawn = [scale.subsample(values)[:, ~scale.given] for scale in scales(module)]
    order = np.concatenate([part.reshape(len(values), -1) for part in drawn], axis=1)
    return bool((order[:, :-1] >= order[:, 1:]).all())


def complete(
    module: Model,
    params: PyTree,
    key: Array,
    images: np.ndarray,
    known: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    particles: int = 1,
) -> Completion:
    """Draws the unknown values of images given the known ones.

    With one particle each unknown value is drawn given all values before it. That is exact if all
    known values come before the unknown ones (`is_exact`). Otherwise it would ignore what is known
    further on, and takes more particles: sequential Monte Carlo draws that many completions
    side by side, weights each by the probability that it gives to the known values, and replaces
    the unlikely by copies of the likely whenever the effective sample size falls below half. One of
    them is returned; its distribution tends to the exact one with the number of particles.

    Args:
        module: The model.
        params: Its parameters.
        key: A key of `jax.random`. What image i gets depends on it, i and the arguments alone.
        images: `[B, H, W, C]` integers from 0 to K - 1; anything where they are not known.
        known: `[B, H, W, C]` booleans.
        labels: `[B]` classes, for a model with classes.
        particles: N, at least 1.

    Raises:
        UserError: There are no particles, or the model is a density.
    """
    if not module.likelihood.discrete:
        raise UserError("a continuous model completes no images: use one with discrete outputs")
    if particles < 1:
        raise UserError(f"particles must be at least 1, got {particles}")
    images = np.where(known, images, 0).astype(np.int32)
    if particles == 1:
        completed, log_probs = in_lanes(module, params, key, images, known, labels=labels)
        log_prob_known = np.where(known, log_probs, 0).sum(axis=(1, 2, 3))
        return Completion(completed, log_prob_known, np.ones(len(images)))

    devices = max(1, min(jax.local_device_count(), len(images)))
    mesh = parallel.own_mesh(devices)
    run = _compiled(module, mesh, particles)
    common = jax.device_put((params, key), parallel.everywhere(mesh))
    starts = range(0, len(images), devices)
    progress = terminal.bar(starts, len(starts), "completing", "batch")
    completed, log_prob_known, sizes = images.copy(), np.zeros(len(images)), np.zeros(len(images))
    for start in progress:
        indices = np.arange(start, start + devices) % len(images)  # The last ones may come again.
        own_labels = None if labels is None else labels[indices]
        found = run(common, (indices, images[indices], known[indices], own_labels))
        terminal.show_time(progress, found)
        for array, values in zip((completed, log_prob_known, sizes), found, strict=True):
            array[indices] = values
    return Completion(completed.astype(value_dtype(module.levels)), log_prob_known, sizes)


@functools.lru_cache(maxsize=16)
def _compiled(module: Model, mesh: Mesh, particles: int) -> Callable[..., Any]:
    """Returns the compiled completion of one image on each device of a mesh."""

    def run(common: Any, batch: Any) -> tuple[Array, Array, Array]:
        params, key = common
        index, image, known, label = jax.tree.map(lambda x: x[0], batch)
        filter_key, choice_key = jax.random.split(jax.random.fold_in(key, index))
        found = particle_filter(module, params, filter_key, image, known, particles, label)
        choice = jax.random.categorical(choice_key, found.log_weights)
        one = found.values[choice], found.log_evidence, found.effective_sample_size
        return tuple(x[None] for x in one)  # type: ignore[return-value]

    return parallel.map_batch(run, mesh)


class Particles(NamedTuple):
    """N weighted completions of one image.

    Attributes:
        values: `[N, H, W, C]`.
        log_weights: `[N]`, normalised: their exponentials add up to 1.
        log_evidence: the logarithm of an unbiased estimate of p(known), in nats.
        effective_sample_size: the smallest on the way.
    """

    values: Array
    log_weights: Array
    log_evidence: Array
    effective_sample_size: Array


def particle_filter(
    module: Model,
    params: PyTree,
    key: Array,
    image: Array,
    known: Array,
    particles: int,
    label: Array | None = None,
) -> Particles:
    """Runs sequential Monte Carlo over the pixels of one image, as one traceable function.

    Unknown values are drawn from the model, known ones weight the particles. After a pixel that
    leaves an effective sample size below N / 2, the particles are resampled (systematically). The
    scales of a model follow one another with the same particles.

    Args:
        module: The model.
        params: Its parameters.
        key: A key of `jax.random`.
        image: `[H, W, C]` integers.
        known: `[H, W, C]` booleans.
        particles: N.
        label: Its class, for a model with classes.
    """
    values_key, resampling_key = jax.random.split(key)
    labels = None if label is None else jnp.broadcast_to(label, particles)
    dtype = jnp.result_type(float)
    found = Particles(
        values=jnp.zeros((particles, 0, 0, 0), image.dtype),
        log_weights=jnp.zeros(particles, dtype),
        log_evidence=jnp.zeros((), dtype),
        effective_sample_size=jnp.full((), particles, dtype),
    )
    for number, scale in enumerate(scales(module)):
        shape = scale.network.image_shape
        uniforms = value_uniforms(values_key, jnp.arange(particles), number, shape)
        offsets_key = jax.random.fold_in(resampling_key, number)
        offsets = jax.random.uniform(offsets_key, shape[:2], dtype)
        own = scale.subsample(image[None])[0], scale.subsample(known[None])[0]
        found = _filter_scale(scale, params, found, *own, labels, uniforms, offsets)
    log_sum = jax.nn.logsumexp(found.log_weights)
    return found._replace(
        log_weights=found.log_weights - log_sum,
        log_evidence=found.log_evidence + log_sum - math.log(particles),
    )


def _filter_scale(
    scale: Scale,
    params: PyTree,
    before: Particles,
    image: Array,
    known: Array,
    labels: Array | None,
    uniforms: Array,
    offsets: Array,
) -> Particles:
    """Carries the particles, with the images of the scale before, over one scale.

    The weights go on from one scale to the next: they are normalised at the end alone.
    """
    network, params = scale.network, scale.select(params)
    particles, (_, width, _) = len(before.log_weights), network.image_shape
    coarse = before.values if network.ratio else None
    given = jnp.asarray(scale.given)

    def contexts_of(condition: Array | None, row: ArrayLike) -> Any:
        here = None if condition is None else condition[:, row]
        return network.apply({"params": params}, here, method="contexts")

    def resampled(carry: _Carry, offset: Array) -> _Carry:
        found = carry.found
        log_sum = jax.nn.logsumexp(found.log_weights)
        cumulative = jnp.cumsum(jnp.exp(found.log_weights - log_sum))
        positions = (jnp.arange(particles) + offset) / particles * cumulative[-1]
        ancestors = jnp.clip(
            jnp.searchsorted(cumulative, positions, side="right"), max=particles - 1
        )
        own = carry._replace(found=found.values)
        own = jax.tree.map(lambda leaf: leaf[ancestors], own)
        found = found._replace(
            values=own.found,
            log_weights=jnp.zeros_like(found.log_weights),
            log_evidence=found.log_evidence + log_sum - math.log(particles),
        )
        return own._replace(found=found)

    def one_pixel(carry: _Carry, inputs: Any) -> tuple[_Carry, None]:
        row, column, given, image, known, uniforms, offset = inputs
        # What the scale before gives is each particle's own.
        image = jnp.where(given, carry.found.values[:, row, column], image[None])
        taken = jnp.broadcast_to(given | known, image.shape)
        temperature = jnp.ones((), uniforms.dtype)
        state, (values, log_probs) = pixel(
            network,
            params,
            carry.state,
            column,
            carry.contexts,
            image,
            taken,
            uniforms,
            temperature,
        )
        counted = jnp.where((known & ~given)[None], log_probs, 0).sum(-1)
        log_weights = carry.found.log_weights + counted
        size = jnp.exp(2 * jax.nn.logsumexp(log_weights) - jax.nn.logsumexp(2 * log_weights))
        found = carry.found._replace(
            values=carry.found.values.at[:, row, column].set(values),
            log_weights=log_weights,
            effective_sample_size=jnp.minimum(carry.found.effective_sample_size, size),
        )
        carry = carry._replace(state=state, found=found)
        return lax.cond(
            size < particles / 2, resampled, lambda carry, _: carry, carry, offset
        ), None

    def one_row(carry: _Carry, inputs: Any) -> tuple[_Carry, None]:
        row, *by_column = inputs
        columns = jnp.arange(width)
        carry = carry._replace(contexts=contexts_of(carry.condition, row))
        carry, _ = lax.scan(one_pixel, carry, (jnp.full(width, row), columns, *by_column))
        state = network.apply({"params": params}, carry.state, carry.contexts, method="end_row")
        return carry._replace(state=state), None

    if coarse is None:
        values = jnp.zeros((particles, *network.image_shape), image.dtype)
    else:
        values = scale.put(coarse)
    condition = condition_on(network, params, labels, coarse)
    start = _Carry(
        state=network.apply({"params": params}, particles, method="init_state"),
        condition=condition,
        contexts=contexts_of(condition, 0),
        found=before._replace(values=values),
    )
    rows = jnp.arange(len(image))
    by_row = rows, given, image, known, uniforms.transpose(1, 2, 0, 3), offsets
    return lax.scan(one_row, start, by_row)[0].found


class _Carry(NamedTuple):
    state: PyTree
    condition: Array | None
    contexts: PyTree
    found: Any
