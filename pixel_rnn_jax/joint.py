"""The distribution of whole images: the terms of all scales, each at the pixel that it gives."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pixel_rnn_jax.likelihoods import ContinuousMixture
from pixel_rnn_jax.models import Model, Scale, scales

PyTree = Any


class Batch(NamedTuple):
    """Images with their classes.

    Attributes:
        images: `[B, H, W, C]` integers from 0 to K - 1, or dequantised values (floats); of NumPy or
            of JAX.
        labels: `[B]` integers; None for a model without classes.
    """

    images: Any
    labels: Any = None


def init_parameters(model: Model, key: jax.Array) -> PyTree:
    """Returns random parameters of a model."""
    labels = jnp.zeros(1, jnp.int32) if model.config.classes else None
    return model.init(key, jnp.zeros((1, *model.image_shape)), labels)["params"]


def outputs(model: Model, params: PyTree, batch: Batch) -> list[jax.Array]:
    """Returns the outputs of each scale, coarsest first, `[B, h, w, C, N]`."""
    inputs = model.likelihood.inputs(jnp.asarray(batch.images))
    found = model.apply({"params": params}, inputs, batch.labels)
    return list(found) if isinstance(found, tuple) else [jnp.asarray(found)]


def _terms(scale: Scale, outputs: jax.Array, images: jax.Array) -> jax.Array:
    """Returns the log-probability of each value of one scale, `[B, h, w, C]`; given ones have 0."""
    terms = scale.network.likelihood.log_prob(outputs, scale.subsample(images))
    return jnp.where(scale.given[None, ..., None], 0, terms)


def log_prob(model: Model, params: PyTree, batch: Batch) -> jax.Array:
    """Returns the term of each value, `[B, H, W, C]` in nats.

    The terms of an image add up to log p(image). In the plain multi-scale form a pixel that belongs
    to several scales has the sum of its terms.
    """
    found = outputs(model, params, batch)
    images = jnp.asarray(batch.images)
    total = jnp.zeros(images.shape, found[-1].dtype)
    for scale, own in zip(scales(model), found, strict=True):
        total = total.at[:, :: scale.stride, :: scale.stride].add(_terms(scale, own, images))
    return total


def nats_by_scale(model: Model) -> Callable[[PyTree, Batch], jax.Array]:
    """Returns (parameters, batch) -> `[B, scales]`, minus the log-probability of each scale."""

    def nats(params: PyTree, batch: Batch) -> jax.Array:
        found = outputs(model, params, batch)
        images = jnp.asarray(batch.images)
        shares = [
            -_terms(scale, own, images).sum(axis=(1, 2, 3))
            for scale, own in zip(scales(model), found, strict=True)
        ]
        return jnp.stack(shares, axis=-1)

    return nats


def nats_of_scale(model: Model, number: int) -> Callable[[PyTree, Batch], jax.Array]:
    """Returns (parameters, batch) -> `[B, 1]`, the share of one scale; no other is computed."""
    chain = scales(model)
    scale = chain[number]

    def nats(params: PyTree, batch: Batch) -> jax.Array:
        images = jnp.asarray(batch.images)
        inputs = model.likelihood.inputs(images)
        coarse = chain[number - 1].subsample(inputs) if number else None
        own = scale.network.apply(
            {"params": scale.select(params)}, scale.subsample(inputs), batch.labels, coarse
        )
        return -_terms(scale, jnp.asarray(own), images).sum(axis=(1, 2, 3))[:, None]

    return nats


def conditionals(model: Model, params: PyTree, batch: Batch) -> jax.Array:
    """Returns the normalised log-probabilities of all levels, `[B, H, W, C, K]`, in nats.

    Of an exact model with a discrete output: each value has the distribution of the scale that
    gives it.
    """
    likelihood = model.likelihood
    assert not isinstance(likelihood, ContinuousMixture)
    by_scale = [
        (scale.stride, likelihood.conditionals(own))
        for scale, own in zip(scales(model), outputs(model, params, batch), strict=True)
    ]
    (_, result), *coarser = reversed(by_scale)
    for stride, terms in coarser:
        result = result.at[:, ::stride, ::stride].set(terms)
    return result
