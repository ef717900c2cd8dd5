"""The distribution of whole images: the terms of all scales, each at the pixel that it gives."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.likelihoods import ContinuousMixture
from pixel_rnn_jax.models import Model, scales

PyTree = Any
NatsFn = Callable[[PyTree, Batch], jax.Array]


def init_parameters(model: Model, key: jax.Array) -> PyTree:
    """Returns random parameters of a model."""
    labels = jnp.zeros(1, jnp.int32) if model.config.classes else None
    return model.init(key, jnp.zeros((1, *model.image_shape)), labels)["params"]


def outputs(model: Model, params: PyTree, batch: Batch) -> list[jax.Array]:
    """Returns the outputs of each scale, coarsest first, `[B, h, w, C, N]`."""
    return [_outputs(model, number, params, batch) for number in range(len(scales(model)))]


def _outputs(model: Model, number: int, params: PyTree, batch: Batch) -> jax.Array:
    chain = scales(model)
    scale = chain[number]
    inputs = model.likelihood.inputs(jnp.asarray(batch.images))
    coarse = chain[number - 1].subsample(inputs) if number else None
    own = scale.subsample(inputs), batch.labels, coarse
    return jnp.asarray(scale.network.apply({"params": scale.select(params)}, *own))


def _terms(model: Model, number: int, params: PyTree, batch: Batch) -> jax.Array:
    """Returns the log-probability of each value of one scale, `[B, h, w, C]`; given ones have 0."""
    scale = scales(model)[number]
    images = scale.subsample(jnp.asarray(batch.images))
    terms = model.likelihood.log_prob(_outputs(model, number, params, batch), images)
    return jnp.where(scale.given[None, ..., None], 0, terms)


def log_prob(model: Model, params: PyTree, batch: Batch) -> jax.Array:
    """Returns the term of each value, `[B, H, W, C]` in nats.

    The terms of an image add up to log p(image). In the plain multi-scale form a pixel that belongs
    to several scales has the sum of its terms.
    """
    parts = []
    for number, scale in enumerate(scales(model)):
        own = _terms(model, number, params, batch)
        whole = jnp.zeros(batch.images.shape, own.dtype)
        parts.append(whole.at[:, :: scale.stride, :: scale.stride].set(own))
    return functools.reduce(jnp.add, parts)


def nats_of_scale(model: Model, number: int) -> NatsFn:
    """Returns (parameters, batch) -> `[B, 1]`, minus the log-probability of one scale in nats.

    No other scale is computed.
    """

    def nats(params: PyTree, batch: Batch) -> jax.Array:
        return -_terms(model, number, params, batch).sum(axis=(1, 2, 3))[:, None]

    return nats


def nats_by_scale(model: Model) -> NatsFn:
    """Returns (parameters, batch) -> `[B, scales]`, the share of each scale in nats."""
    shares = [nats_of_scale(model, number) for number in range(len(scales(model)))]

    def nats(params: PyTree, batch: Batch) -> jax.Array:
        return jnp.concatenate([share(params, batch) for share in shares], axis=-1)

    return nats


def conditionals(model: Model, params: PyTree, batch: Batch) -> jax.Array:
    """Returns the normalised log-probabilities of all levels, `[B, H, W, C, K]`, in nats.

    Of an exact model with a discrete output: each value has the distribution of the scale that
    gives it.
    """
    likelihood = model.likelihood
    assert not isinstance(likelihood, ContinuousMixture)
    *coarser, result = (likelihood.conditionals(own) for own in outputs(model, params, batch))
    for scale, own in reversed([*zip(scales(model), coarser, strict=False)]):
        result = result.at[:, :: scale.stride, :: scale.stride].set(own)
    return result
