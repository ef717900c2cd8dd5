"""What the outputs of a head mean: log-probabilities of discrete values, and their units."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def logits_per_value(levels: int) -> int:
    """Returns the number of logits for a value of K levels: one (a sigmoid) for K = 2, else K."""
    return 1 if levels == 2 else levels


def scale(images: Array, levels: int) -> Array:
    """Maps integer values 0 .. K - 1 to floats from -1 to 1, the inputs of a model."""
    return images.astype(jnp.result_type(float)) * (2 / (levels - 1)) - 1


def log_prob(logits: Array, images: Array) -> Array:
    """Returns the log-probability of each value.

    Args:
        logits: `[B, H, W, C, K]`, or `[B, H, W, C, 1]` for two levels.
        images: `[B, H, W, C]` integers.

    Returns:
        `[B, H, W, C]` in nats.
    """
    images = images.astype(jnp.int32)
    if logits.shape[-1] == 1:
        logit = logits[..., 0]
        return jax.nn.log_sigmoid(jnp.where(images == 1, logit, -logit))
    level = jax.lax.broadcasted_iota(jnp.int32, (1,) * images.ndim + logits.shape[-1:], images.ndim)
    chosen = jnp.where(level == images[..., None], logits, 0).sum(-1)
    return chosen - jax.nn.logsumexp(logits, axis=-1)


def conditionals(logits: Array) -> Array:
    """Returns the normalised log-probabilities of all levels, `[B, H, W, C, K]`, in nats."""
    if logits.shape[-1] == 1:
        logits = jnp.concatenate([-logits, logits], axis=-1)
        return jax.nn.log_sigmoid(logits)
    return jax.nn.log_softmax(logits, axis=-1)


def draw(logits: Array, uniform: Array) -> Array:
    """Draws a value by inverting the cumulative distribution at a number from [0, 1).

    Args:
        logits: `[..., K]`, or `[..., 1]` for two levels.
        uniform: `[...]`; values drawn from uniform numbers have the distribution of the logits.

    Returns:
        `[...]` integers.
    """
    if logits.shape[-1] == 1:
        return (uniform >= jax.nn.sigmoid(-logits[..., 0])).astype(jnp.int32)
    cumulative = jnp.cumsum(jax.nn.softmax(logits, axis=-1), axis=-1)
    return (cumulative[..., :-1] <= uniform[..., None]).sum(-1, dtype=jnp.int32)


def mode(logits: Array) -> Array:
    """Returns the most probable value of `[..., K]` logits (`[..., 1]` for two levels)."""
    if logits.shape[-1] == 1:
        return (logits[..., 0] > 0).astype(jnp.int32)
    return logits.argmax(-1).astype(jnp.int32)


def bits_per_dim(nats: Array | np.ndarray | float, dims: int) -> Array | np.ndarray | float:
    """Converts nats per image to bits per value of an image of `dims` = H * W * C values."""
    return nats / (dims * math.log(2))
