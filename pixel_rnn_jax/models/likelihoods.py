"""What the outputs of a head mean: probabilities of values or densities, and their units.

A head gives Q numbers for each value, `outputs` `[..., Q]`. Three classes say what they are:

    Softmax              Q = K logits of the levels; one logit of a sigmoid for K = 2
    LogisticMixture      a mixture of logistic distributions; a level has the mass of its cell
    ContinuousMixture    the density of such a mixture, for values with noise added

All log-probabilities are in nats. Level x has the cell [x, x + 1), and densities are per unit of a
level. So the density that is P(x) all over each cell has the log-density log P(x), and densities
compare with probabilities.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError


class Discrete:
    """What all distributions of K levels have in common: logits."""

    discrete: ClassVar[bool] = True
    levels: int

    def logits(self, outputs: Array) -> Array:
        """Returns logits, `[..., K]`; for K = 2 that of the value 1, `[..., 1]`."""
        raise NotImplementedError

    def inputs(self, images: Array) -> Array:
        """Maps values from 0 to K - 1 to the inputs of a network, from -1 to 1."""
        return _centred(images, self.levels - 1)

    def conditionals(self, outputs: Array) -> Array:
        """Returns the normalised log-probabilities of all levels, `[..., K]`."""
        logits = self.logits(outputs)
        if self.levels == 2:
            return jax.nn.log_sigmoid(jnp.concatenate([-logits, logits], axis=-1))
        return jax.nn.log_softmax(logits, axis=-1)

    def draw(self, outputs: Array, uniform: Array, temperature: Array | None) -> Array:
        """Draws values, `[...]` integers, by inverting the cumulative distribution.

        Args:
            outputs: `[..., Q]`.
            uniform: `[...]` numbers from [0, 1), to be drawn uniformly.
            temperature: Divides the logits; None takes the most probable value.
        """
        logits = self.logits(outputs)
        if self.levels == 2:
            if temperature is None:
                return (logits[..., 0] > 0).astype(jnp.int32)
            return (uniform >= jax.nn.sigmoid(-logits[..., 0] / temperature)).astype(jnp.int32)
        if temperature is None:
            return logits.argmax(-1).astype(jnp.int32)
        # The largest becomes 0, so that no temperature makes any of them infinite.
        logits = (logits - logits.max(-1, keepdims=True)) / temperature
        return _index_at(jax.nn.softmax(logits, axis=-1), uniform)


@dataclass(frozen=True)
class Softmax(Discrete):
    """A softmax over K levels, or a sigmoid for two, as in the paper (section 3.5)."""

    levels: int

    @property
    def outputs(self) -> int:
        """Q."""
        return 1 if self.levels == 2 else self.levels

    def logits(self, outputs: Array) -> Array:
        """Returns logits: the outputs themselves."""
        return outputs

    def log_prob(self, outputs: Array, images: Array) -> Array:
        """Returns the log-probability of each value of images, `[...]` integers."""
        images = images.astype(jnp.int32)
        if self.levels == 2:
            logit = outputs[..., 0]
            return jax.nn.log_sigmoid(jnp.where(images == 1, logit, -logit))
        axis = images.ndim
        level = jax.lax.broadcasted_iota(jnp.int32, (1,) * axis + outputs.shape[-1:], axis)
        chosen = jnp.where(level == images[..., None], outputs, 0).sum(-1)
        return chosen - jax.nn.logsumexp(outputs, axis=-1)


@dataclass(frozen=True)
class _Logistics:
    """Mixtures of M logistic distributions: Q = 3 M weights, means and widths.

    The means are offsets, in half ranges, from M places spread over the K levels, so that the
    components of a new model differ. A width is at least a twentieth of a cell, narrow enough for a
    value that is certain, and at most five ranges.
    """

    levels: int
    mixtures: int

    @property
    def outputs(self) -> int:
        """Q."""
        return 3 * self.mixtures

    def _parts(self, outputs: Array) -> tuple[Array, Array, Array]:
        """Returns log-weights, means and widths, `[..., M]` each; the last two in levels."""
        weights, means, widths = jnp.split(outputs, 3, axis=-1)
        half = self.levels / 2
        places = jnp.asarray(np.linspace(-1, 1, self.mixtures + 2)[1:-1], outputs.dtype)
        places = places.reshape((1,) * (outputs.ndim - 1) + (-1,))
        first = max(half / self.mixtures, 0.05)
        widths = jnp.exp(jnp.clip(widths + math.log(first), math.log(0.05), math.log(10 * half)))
        return jax.nn.log_softmax(weights, axis=-1), (means + places + 1) * half, widths

    def _mixture(self, outputs: Array, log_prob: Callable[[Array, Array], Array]) -> Array:
        """Returns the logarithm of the mixture of exp(log_prob(mean, width))."""
        log_weights, means, widths = self._parts(outputs)
        # One by one: an array with an axis of components and one of levels would be large.
        components = [
            log_weights[..., m] + log_prob(means[..., m], widths[..., m])
            for m in range(self.mixtures)
        ]
        return functools.reduce(jnp.logaddexp, components)


@dataclass(frozen=True)
class LogisticMixture(_Logistics, Discrete):
    """A discretised mixture of logistics: each level has the probability of its cell.

    The lowest and the highest cell extend to infinity, so that the probabilities add up to one.
    """

    def logits(self, outputs: Array) -> Array:
        """Returns logits, `[..., K]`; for K = 2 that of the value 1, `[..., 1]`."""
        levels = jnp.arange(self.levels).reshape((1,) * (outputs.ndim - 1) + (-1,))
        log_probs = self.log_prob(outputs[..., None, :], levels)
        return log_probs[..., 1:] - log_probs[..., :1] if self.levels == 2 else log_probs

    def log_prob(self, outputs: Array, images: Array) -> Array:
        """Returns the log-probability of each value; axes of size 1 of either are repeated."""
        value = images.astype(outputs.dtype)
        lowest, highest = value == 0, value == self.levels - 1

        def cell(mean: Array, width: Array) -> Array:
            low, cell = (value - mean) / width, 1 / width
            # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)) loses no digits. The first
            # factor is 1 for the highest level, the second is 1 for the lowest.
            return (
                jnp.where(highest, 0, jax.nn.log_sigmoid(low + cell))
                + jnp.where(lowest, 0, jax.nn.log_sigmoid(-low))
                + jnp.where(lowest | highest, 0, jnp.log(-jnp.expm1(-cell)))
            )

        return self._mixture(outputs, cell)


@dataclass(frozen=True)
class ContinuousMixture(_Logistics):
    """The density of a mixture of logistics, for dequantised values."""

    discrete: ClassVar[bool] = False

    def inputs(self, images: Array) -> Array:
        """Maps dequantised values, from 0 to K, to the inputs of a network, from -1 to 1."""
        return _centred(images, self.levels)

    def log_prob(self, outputs: Array, images: Array) -> Array:
        """Returns the log-density of each value of images, `[...]` floats."""
        value = images.astype(outputs.dtype)

        def density(mean: Array, width: Array) -> Array:
            z = (value - mean) / width
            return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - jnp.log(width)

        return self._mixture(outputs, density)

    def draw(self, outputs: Array, uniform: Array, temperature: Array | None) -> Array:
        """Draws values, `[...]` floats: one uniform number gives a component and a value of it.

        The values may lie outside [0, K), since a logistic distribution has no ends. The
        temperature is not used: a density has no logits.
        """
        log_weights, means, widths = self._parts(outputs)
        weights = jnp.exp(log_weights)
        index = _index_at(weights, uniform)[..., None]

        def chosen(x: Array) -> Array:
            return jnp.take_along_axis(x, index, axis=-1)[..., 0]

        # How far along the part of [0, 1) that belongs to the component.
        limits = jnp.finfo(uniform.dtype)
        before = chosen(jnp.cumsum(weights, axis=-1) - weights)
        rest = (uniform - before) / jnp.maximum(chosen(weights), limits.tiny)
        rest = jnp.clip(rest, limits.eps, 1 - limits.eps)
        return chosen(means) + chosen(widths) * (jnp.log(rest) - jnp.log1p(-rest))


Likelihood = Softmax | LogisticMixture | ContinuousMixture


def of(config: ModelConfig, levels: int) -> Likelihood:
    """Returns the likelihood that `config.output` names."""
    match config.output:
        case "softmax":
            return Softmax(levels)
        case "logistic":
            return LogisticMixture(levels, config.mixtures)
        case "continuous":
            return ContinuousMixture(levels, config.mixtures)
    raise AssertionError(config.output)


def _index_at(probabilities: Array, uniform: Array) -> Array:
    """Returns the index into the last axis at which the cumulative sum passes a uniform number."""
    cumulative = jnp.cumsum(probabilities, axis=-1)
    # Scaled by the sum itself, which may differ from one in the last digits.
    place = uniform[..., None] * cumulative[..., -1:]
    return (cumulative[..., :-1] <= place).sum(-1, dtype=jnp.int32)


def _centred(values: Array, largest: int) -> Array:
    return values.astype(jnp.result_type(float)) * (2 / largest) - 1


def dequantize(images: Array | np.ndarray, key: Array) -> Array:
    """Adds uniform noise from [0, 1) to images, `[B, H, W, C]` integers; `floor` takes it away.

    Level x comes to lie in [x, x + 1). A discrete model implies a density of the result that is
    constant over each cell: its log-density is the log-probability of the images. For any other
    density, the average log-density over the noise is a lower bound on the log-probability of the
    images that it implies.

    Args:
        images: The images.
        key: A key of `jax.random`.

    Raises:
        UserError: The images are not integers; perhaps they have noise already.
    """
    if jnp.asarray(images).dtype.kind not in "biu":
        raise UserError(f"dequantize takes integers, got {jnp.asarray(images).dtype} values")
    low = jnp.asarray(images, jnp.result_type(float))
    noisy = low + jax.random.uniform(key, low.shape, low.dtype)
    return jnp.minimum(noisy, jnp.nextafter(low + 1, low))  # Rounding may have reached x + 1.


def bits_per_dim(nats: Array | np.ndarray | float, dims: int) -> Array | np.ndarray | float:
    """Converts nats per image to bits per value of an image of `dims` = H * W * C values."""
    return nats / (dims * math.log(2))
