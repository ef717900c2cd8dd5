"""The small network that maps a coarse image to features of a finer one (section 3.6)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


class Upsampler(nn.Module):
    """A 5x5 convolution, then a transposed convolution for each prime factor of the ratio.

    A transposed convolution of stride p has a kernel of 3p x 3p, so that a pixel of its output sees
    the pixel that it lies in and the eight around it. With one factor every pixel of the fine map
    sees the coarse image up to 3 coarse pixels away in every direction, below and to the right as
    well; each further factor adds one pixel of its own, finer, input.
    """

    features: int
    ratio: int  # Fine height / coarse height, and likewise the widths.
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, coarse: Array) -> Array:
        """Maps `[B, H / ratio, W / ratio, C]` to `[B, H, W, features]`."""
        options: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = nn.relu(nn.Conv(self.features, (5, 5), **options)(coarse))
        for factor in prime_factors(self.ratio):
            size, stride = (3 * factor, 3 * factor), (factor, factor)
            x = nn.relu(nn.ConvTranspose(self.features, size, stride, "SAME", **options)(x))
        return x


def prime_factors(number: int) -> list[int]:
    """Returns the prime factors of a positive number in increasing order."""
    factors, factor = [], 2
    while number > 1:
        while number % factor == 0:
            factors.append(factor)
            number //= factor
        factor += 1
    return factors
