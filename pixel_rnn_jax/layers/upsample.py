"""The small network that takes a coarse image to features of a finer one (section 3.6)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike


class Upsampler(nn.Module):
    """A 5x5 convolution, then a transposed convolution for each prime factor of the ratio.

    Each transposed convolution of stride p has a kernel of 3p x 3p, so that a pixel of its output
    sees the pixel that it lies in and the eight around it. With one factor every pixel of the fine
    map sees the coarse image up to 3 coarse pixels away in every direction, those below and on the
    right included; each further factor p adds one pixel of its own input, which is smaller.

    Attributes:
        features: of the map.
        ratio: how many times as high and wide the map is as the coarse image.
        dtype: of the computation.
        param_dtype: of the parameters.
    """

    features: int
    ratio: int
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
