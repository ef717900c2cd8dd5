"""Shifting with zeros: what one tap of a convolution sees."""

import jax.numpy as jnp
from jax import Array, lax


def shift(x: Array, offset: int, axis: int) -> Array:
    """Returns x[position + offset] at each position of `axis`, and zeros where that is outside."""
    size = x.shape[axis]
    low, high = max(-offset, 0), max(offset, 0)
    if low + high >= size:
        return jnp.zeros_like(x)
    padding = [(0, 0)] * x.ndim
    padding[axis] = (low, high)
    return jnp.pad(lax.slice_in_dim(x, high, size - low, axis=axis), padding)
