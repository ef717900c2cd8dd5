"""What the outputs of a head mean: probabilities of values or densities, and their units.

A head has some numbers for each value, its `outputs` `[..., N]`. Three classes say what they are:

    Softmax              logits of the K levels; one logit of a sigmoid for K = 2
    LogisticMixture      a mixture of logistic distributions, of which each level has a unit cell
    ContinuousMixture    its density, for values with noise added: comparable, but no probability

Level x has the cell [x, x + 1): a density is one per unit of a level, so that the density which is
constant over each cell and equals the probability there has the log-density log P(x).
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
    """What all distributions of K levels can do that have logits."""

    discrete: ClassVar[bool] = True
    levels: int

    def logits(self, outputs: Array) -> Array:
        """Returns logits `[..., K]` (K = 2: `[..., 1]`, the logit of the value 1)."""
        raise NotImplementedError

    def inputs(self, images: Array) -> Array:
        """Maps values 0 .. K - 1 to floats from -1 to 1, the inputs of a model."""
        return _centred(images, self.levels - 1)

    def conditionals(self, outputs: Array) -> Array:
        """Returns the normalised log-probabilities of all levels, `[..., K]`, in nats."""
        logits = self.logits(outputs)
        if self.levels == 2:
            return jax.nn.log_sigmoid(jnp.concatenate([-logits, logits], axis=-1))
        return jax.nn.log_softmax(logits, axis=-1)

    def draw(self, outputs: Array, uniform: Array, temperature: Array | None) -> Array:
        """Draws values by inverting the cumulative distribution at numbers from [0, 1).

        Args:
            outputs: `[..., N]`.
            uniform: `[...]`; values drawn from uniform numbers have the distribution itself.
            temperature: What logits are divided by; None takes the most probable value.

        Returns:
            `[...]` integers.
        """
        logits = self.logits(outputs)
        if self.levels == 2:
            if temperature is None:
                return (logits[..., 0] > 0).astype(jnp.int32)
            return (uniform >= jax.nn.sigmoid(-logits[..., 0] / temperature)).astype(jnp.int32)
        if temperature is None:
            return logits.argmax(-1).astype(jnp.int32)
        # From the largest down, so that no temperature makes them infinite.
        logits = (logits - logits.max(-1, keepdims=True)) / temperature
        return _index_at(jax.nn.softmax(logits, axis=-1), uniform)


@dataclass(frozen=True)
class Softmax(Discrete):
    """A softmax over K levels, or a sigmoid for two: the paper's (section 3.5).

    Attributes:
        levels: K.
    """

    levels: int

    @property
    def outputs(self) -> int:
        """N, the numbers that the head has for a value."""
        return 1 if self.levels == 2 else self.levels

    def logits(self, outputs: Array) -> Array:
        """Returns logits `[..., K]` (K = 2: `[..., 1]`, the logit of the value 1)."""
        return outputs

    def log_prob(self, outputs: Array, images: Array) -> Array:
        """Returns the log-probability of each value in nats.

        Args:
            outputs: `[..., N]`.
            images: `[...]` integers.
        """
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
    """Mixtures of M logistic distributions: N = 3 M weights, means and widths.

    The means are offsets from M places spread over the K levels, in half ranges, so that components
    differ from the beginning. A width is at least a twentieth of a cell, which is sharp enough for
    a certain value, and at most five ranges.

    Attributes:
        levels: K.
        mixtures: M.
    """

    levels: int
    mixtures: int

    @property
    def outputs(self) -> int:
        """N, the numbers that the head has for a value."""
        return 3 * self.mixtures

    def _parts(self, outputs: Array) -> tuple[Array, Array, Array]:
        """Returns log-weights, and means and widths in levels, `[..., M]` each."""
        weights, means, widths = jnp.split(outputs, 3, axis=-1)
        half = self.levels / 2
        places = jnp.asarray(np.linspace(-1, 1, self.mixtures + 2)[1:-1], outputs.dtype)
        places = places.reshape((1,) * (outputs.ndim - 1) + (-1,))
        first = max(half / self.mixtures, 0.05)
        widths = jnp.exp(jnp.clip(widths + math.log(first), math.log(0.05), math.log(10 * half)))
        return jax.nn.log_softmax(weights, axis=-1), (means + places + 1) * half, widths

    def _mixture(self, outputs: Array, log_prob: Callable[[Array, Array], Array]) -> Array:
        """Returns the logarithm of the mixture of exp(log_prob(mean, width)).

        Component by component: an axis of components beside one of levels would be a large array.
        """
        log_weights, means, widths = self._parts(outputs)
        components = [
            log_weights[..., m] + log_prob(means[..., m], widths[..., m])
            for m in range(self.mixtures)
        ]
        return functools.reduce(jnp.logaddexp, components)


@dataclass(frozen=True)
class LogisticMixture(_Logistics, Discrete):
    """A discretised mixture of logistics: each level has the probability of its cell.

    The cells of the lowest and the highest level go on to infinity, so that all add up to one.
    """

    def logits(self, outputs: Array) -> Array:
        """Returns logits `[..., K]` (K = 2: `[..., 1]`, the logit of the value 1)."""
        levels = jnp.arange(self.levels).reshape((1,) * (outputs.ndim - 1) + (-1,))
        log_probs = self.log_prob(outputs[..., None, :], levels)
        return log_probs[..., 1:] - log_probs[..., :1] if self.levels == 2 else log_probs

    def log_prob(self, outputs: Array, images: Array) -> Array:
        """Returns the log-probability of each value in nats.

        Args:
            outputs: `[..., N]`.
            images: `[...]` integers; axes of size 1 in either are repeated.
        """
        value = images.astype(outputs.dtype)
        lowest, highest = value == 0, value == self.levels - 1

        def cell(mean: Array, width: Array) -> Array:
            low, cell = (value - mean) / width, 1 / width
            # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)), which loses no digits; the
            # first factor is 1 for the highest level, the second for the lowest.
            return (
                jnp.where(highest, 0, jax.nn.log_sigmoid(low + cell))
                + jnp.where(lowest, 0, jax.nn.log_sigmoid(-low))
                + jnp.where(lowest | highest, 0, jnp.log(-jnp.expm1(-cell)))
            )

        return self._mixture(outputs, cell)


@dataclass(frozen=True)
class ContinuousMixture(_Logistics):
    """The density of a mixture of logistics, for dequantised values: level x is in [x, x + 1)."""

    discrete: ClassVar[bool] = False

    def inputs(self, images: Array) -> Array:
        """Maps dequantised values, 0 to K, to floats from -1 to 1, the inputs of a model."""
        return _centred(images, self.levels)

    def log_prob(self, outputs: Array, images: Array) -> Array:
        """Returns the log-density of each value, in nats and per unit of a level.

        Args:
            outputs: `[..., N]`.
            images: `[...]` floats.
        """
        value = images.astype(outputs.dtype)

        def density(mean: Array, width: Array) -> Array:
            z = (value - mean) / width
            return jax.nn.log_sigmoid(z) + jax.nn.log_sigmoid(-z) - jnp.log(width)

        return self._mixture(outputs, density)

    def draw(self, outputs: Array, uniform: Array, temperature: Array | None) -> Array:
        """Draws values: a component, and a value from it, by one number from [0, 1).

        Args:
            outputs: `[..., N]`.
            uniform: `[...]`.
            temperature: Has to be 1: a density has no logits.

        Returns:
            `[...]` floats, not all from [0, K): a logistic distribution has no ends.
        """
        log_weights, means, widths = self._parts(outputs)
        weights = jnp.exp(log_weights)
        index = _index_at(weights, uniform)[..., None]

        def chosen(x: Array) -> Array:
            return jnp.take_along_axis(x, index, axis=-1)[..., 0]

        # Where in the part of [0, 1) that belongs to the component.
        limits = jnp.finfo(uniform.dtype)
        before = chosen(jnp.cumsum(weights, axis=-1) - weights)
        rest = (uniform - before) / jnp.maximum(chosen(weights), limits.tiny)
        rest = jnp.clip(rest, limits.eps, 1 - limits.eps)
        return chosen(means) + chosen(widths) * (jnp.log(rest) - jnp.log1p(-rest))


Likelihood = Softmax | LogisticMixture | ContinuousMixture


def of(config: ModelConfig, levels: int) -> Likelihood:
    """Returns what `config.output` says that the outputs mean."""
    match config.output:
        case "softmax":
            return Softmax(levels)
        case "logistic":
            return LogisticMixture(levels, config.mixtures)
        case "continuous":
            return ContinuousMixture(levels, config.mixtures)
    raise AssertionError(config.output)


def _index_at(probabilities: Array, uniform: Array) -> Array:
    """Returns where in `[..., N]` probabilities, laid side by side, a number from [0, 1) falls."""
    cumulative = jnp.cumsum(probabilities, axis=-1)
    # Of the sum itself, which may fall short of one in the last digits.
    place = uniform[..., None] * cumulative[..., -1:]
    return (cumulative[..., :-1] <= place).sum(-1, dtype=jnp.int32)


def _centred(values: Array, largest: int) -> Array:
    return values.astype(jnp.result_type(float)) * (2 / largest) - 1


def dequantize(images: Array | np.ndarray, key: Array) -> Array:
    """Adds uniform noise from [0, 1) to each value, so that level x lies in [x, x + 1).

    A discrete model implies the density of the result which is constant over each cell: its
    log-density is the log-probability of `floor` of the values. The average of another density's
    logarithm over the noise is a lower bound of the log-probability that it implies.

    Args:
        images: `[B, H, W, C]` integers.
        key: A key of `jax.random`.

    Returns:
        `[B, H, W, C]` floats; `floor` gives the images again.

    Raises:
        UserError: The images are no integers: they have noise already, perhaps.
    """
    if jnp.asarray(images).dtype.kind not in "biu":
        raise UserError(f"dequantize takes integers, got {jnp.asarray(images).dtype} values")
    low = jnp.asarray(images, jnp.result_type(float))
    noisy = low + jax.random.uniform(key, low.shape, low.dtype)
    return jnp.minimum(noisy, jnp.nextafter(low + 1, low))  # Where rounding has reached x + 1.


def bits_per_dim(nats: Array | np.ndarray | float, dims: int) -> Array | np.ndarray | float:
    """Converts nats per image to bits per value of an image of `dims` = H * W * C values."""
    return nats / (dims * math.log(2))
