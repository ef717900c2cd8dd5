"""Distributions of a value, given the outputs of a head: probabilities or densities, in nats.

A head gives Q numbers for each value, `outputs` `[..., Q]`:

    Softmax                     Q = K logits of the levels; one logit of a sigmoid for K = 2
    DiscretizedLogisticMixture  a mixture of logistics, Q = 3M; a level has the mass of its cell
    CoupledLogisticMixture      the same, its weights and means given the channels before
    LogisticMixture             the density of such a mixture, for values with noise added
    GaussianMixture             the density of a mixture of Gaussians, for standardised values

Level x has the cell [x, x + 1), and the densities of LogisticMixture are per unit of a level. To
spread P(x) over its cell gives density P(x): nats of both compare.

The network itself gives a vector for each pixel, which `split_channels` turns into the outputs of
its channels: C vectors one after another, but for `CoupledLogisticMixture`. The other mixtures
take a linear prediction of the value, from the values around it, for the mean of each component.
"""

import abc
import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from pixel_rnn_jax.model.config import ModelConfig, check
from pixel_rnn_jax.system.errors import UserError


class Likelihood(abc.ABC):
    """What a network's outputs mean; the network gives Q of them for each channel of a pixel.

    A field that has the name of a field of `ModelConfig` takes its value from there; `levels` is K.
    """

    discrete: ClassVar[bool] = False
    """Values are levels that have probabilities; otherwise the model is a density."""
    dequantised: ClassVar[bool] = False
    """A density of levels with uniform noise in [0, 1) added."""
    standardised: ClassVar[bool] = False
    """A density of real values of about mean 0 and variance 1; there are no levels."""
    coupled: ClassVar[bool] = False
    """The network sees whole pixels, and the outputs for a channel depend on earlier ones."""
    head_may_round: ClassVar[bool] = False
    """The last layer may round the operands of its products to `model.dtype`."""

    @property
    @abc.abstractmethod
    def outputs(self) -> int:
        """Q."""

    @abc.abstractmethod
    def inputs(self, images: Array, dtype: DTypeLike) -> Array:
        """Maps values to the inputs of a network, numbers of about -1 to 1."""

    @abc.abstractmethod
    def log_prob(self, outputs: Array, images: Array) -> Array:
        """Returns the log-probability or log-density of each value of images, `[...]`, in nats."""

    @abc.abstractmethod
    def draw(self, outputs: Array, uniform: Array, temperature: Array) -> Array:
        """Draws values, `[...]`, from outputs `[..., Q]`.

        `uniform` are `[...]` numbers from (0, 1), drawn uniformly. The temperature divides the
        logits of a discrete distribution; 0 takes the most probable value.
        """

    @abc.abstractmethod
    def log_prob_of_draw(self, outputs: Array, values: Array, temperature: Array) -> Array:
        """Returns the log-probability or log-density under which `draw` gives values, `[...]`."""

    def pixel_outputs(self, channels: int) -> int:
        """Returns the number of outputs of the network for a pixel of C channels."""
        return channels * self.outputs

    def split_channels(self, outputs: Array, values: Array) -> Array:
        """Splits the outputs for pixels, `[..., pixel_outputs]`, by channels: `[..., C, Q]`.

        A channel's outputs may depend on the `values` `[..., C]` of earlier channels.
        """
        return outputs.reshape(*outputs.shape[:-1], values.shape[-1], self.outputs)

    @property
    def predictions(self) -> int:
        """The number M of predictions of a value that `move` takes; 0 without `move`."""
        return 0

    def move(self, outputs: Array, predictions: Array) -> Array:
        """Moves `[..., Q]` by linear predictions of the value, `[..., M]` in units of `inputs`."""
        raise NotImplementedError


@dataclass(frozen=True)
class Discrete(Likelihood):
    """A distribution of K levels, which has logits."""

    discrete: ClassVar[bool] = True

    levels: int

    @abc.abstractmethod
    def logits(self, outputs: Array) -> Array:
        """Returns logits, `[..., K]`; for K = 2 only the value 1's, `[..., 1]`."""

    def log_prob(self, outputs: Array, images: Array) -> Array:
        return Softmax(self.levels).log_prob(self.logits(outputs), images)

    def inputs(self, images: Array, dtype: DTypeLike) -> Array:
        return images.astype(dtype) * (2 / (self.levels - 1)) - 1

    @property
    def digit_sizes(self) -> tuple[int, ...]:
        """What the digits of a level count, the highest first; (1,) codes a level at once.

        Several digits are hexadecimal.
        """
        return (1,)

    def digit_logits(self, outputs: Array, first: Array, size: int) -> Array:
        """Returns the logits of a digit, given the first level, `[...]`, with the digits before."""
        return self.logits(outputs)

    def conditionals(self, outputs: Array) -> Array:
        """Returns the normalised log-probabilities of all levels, `[..., K]`."""
        logits = self.logits(outputs)
        if self.levels == 2:
            return jax.nn.log_sigmoid(jnp.concatenate([-logits, logits], axis=-1))
        return jax.nn.log_softmax(logits, axis=-1)

    def draw(self, outputs: Array, uniform: Array, temperature: Array) -> Array:
        logits = self._tempered(outputs, temperature)
        # At temperature 0 the first of the most probable values.
        uniform = jnp.where(temperature < jnp.finfo(logits.dtype).tiny, 0, uniform)
        if self.levels == 2:
            return (uniform >= jax.nn.sigmoid(-logits[..., 0])).astype(jnp.int32)
        return _index_at(jax.nn.softmax(logits, axis=-1), uniform)

    def log_prob_of_draw(self, outputs: Array, values: Array, temperature: Array) -> Array:
        logits = self._tempered(outputs, temperature)
        log_prob = Softmax(self.levels).log_prob(logits, values)
        return jnp.where(temperature < jnp.finfo(logits.dtype).tiny, 0, log_prob)

    def _tempered(self, outputs: Array, temperature: Array) -> Array:
        """Returns logits divided by a temperature; of K > 2 levels they are at most 0."""
        logits = self.logits(outputs)
        if self.levels > 2:  # The largest becomes 0, so that it stays finite.
            logits = logits - logits.max(-1, keepdims=True)
        temperature = jnp.asarray(temperature, logits.dtype)
        return logits / jnp.maximum(temperature, jnp.finfo(logits.dtype).tiny)


@dataclass(frozen=True)
class Softmax(Discrete):
    """A softmax over K levels, or a sigmoid for two, as in the paper (section 3.5)."""

    head_may_round: ClassVar[bool] = True

    @property
    def outputs(self) -> int:
        return 1 if self.levels == 2 else self.levels

    def logits(self, outputs: Array) -> Array:
        return outputs

    def log_prob(self, outputs: Array, images: Array) -> Array:
        images = images.astype(jnp.int32)
        if self.levels == 2:
            logit = outputs[..., 0]
            return jax.nn.log_sigmoid(jnp.where(images == 1, logit, -logit))
        axis = images.ndim
        level = jax.lax.broadcasted_iota(jnp.int32, (1,) * axis + outputs.shape[-1:], axis)
        chosen = jnp.where(level == images[..., None], outputs, 0).sum(-1)
        return chosen - jax.nn.logsumexp(outputs, axis=-1)


@dataclass(frozen=True)
class Total:
    """The known sum of all values of an image, `model.total`.

    A level is allowed if the remaining values can still reach the total. If none is, all are
    (Hibat-Allah et al., "Recurrent neural network wave functions", appendix D.2). The outputs are a
    `Softmax`'s.
    """

    total: int
    levels: int

    def restrict_images(self, outputs: Array, images: Array) -> Array:
        """Restricts the outputs of whole images, `[B, H, W, C, Q]`."""
        shape = images.shape[1:]
        flat = images.astype(jnp.int32).reshape(-1, math.prod(shape))
        remaining = (self.total - jnp.cumsum(flat, axis=1) + flat).reshape(images.shape)
        return self.restrict(outputs, remaining, np.arange(flat.shape[1])[::-1].reshape(shape))

    def restrict(self, outputs: Array, remaining: Array, num_after: ArrayLike) -> Array:
        """Restricts outputs, `[..., Q]`.

        `remaining` `[...]` is the total less all decided values; `num_after` values, a number or
        `[...]`, are free after this one.
        """
        num_after = jnp.broadcast_to(num_after, remaining.shape)
        levels = jnp.arange(self.levels).reshape((1,) * remaining.ndim + (-1,))
        after = remaining[..., None] - levels
        possible = (after >= 0) & (after <= (self.levels - 1) * num_after[..., None])
        some = possible.any(-1, keepdims=True)
        if self.levels > 2:
            return jnp.where(possible | ~some, outputs, -jnp.inf)
        certain = jnp.where(possible[..., 1:], jnp.inf, -jnp.inf)
        return jnp.where(possible.all(-1, keepdims=True) | ~some, outputs, certain)


def _logit(uniform: Array) -> Array:
    """The inverse cumulative distribution of a logistic of mean 0 and width 1."""
    return jnp.log(uniform) - jnp.log1p(-uniform)


@dataclass(frozen=True)
class _Mixture(Likelihood):
    """Mixtures of M distributions with a mean and a width each: Q = 3 M."""

    _quantile: ClassVar[Any]
    """The inverse cumulative distribution of a component of mean 0 and width 1."""

    mixtures: int

    @property
    def outputs(self) -> int:
        return 3 * self.mixtures

    @property
    def predictions(self) -> int:
        return self.mixtures

    def move(self, outputs: Array, predictions: Array) -> Array:
        weights, means, widths = jnp.split(outputs, 3, axis=-1)
        return jnp.concatenate([weights, means + predictions, widths], axis=-1)

    @abc.abstractmethod
    def _parts(self, rows: Array) -> tuple[Array, Array, Array]:
        """Maps outputs, `[Q, ...]`, to log-weights, means and widths, `[M, ...]` each."""

    @abc.abstractmethod
    def _component(self, values: Array, mean: Array, width: Array) -> tuple[Array, Array]:
        """Returns exponents and factors: at a value, a component is exp(exponent) * factor."""

    def log_prob(self, outputs: Array, images: Array) -> Array:
        shape = jnp.broadcast_shapes(outputs.shape[:-1], images.shape)
        outputs = jnp.broadcast_to(outputs, (*shape, outputs.shape[-1]))
        values = jnp.broadcast_to(images, shape).reshape(-1).astype(outputs.dtype)
        # Long rows, one for each output, take a CPU a third of the time of outputs side by side.
        log_weights, means, widths = self._parts(outputs.reshape(-1, outputs.shape[-1]).T)
        exponents, factors = self._component(values[None], means, widths)
        logs = log_weights + exponents
        top = jax.lax.stop_gradient(logs.max(0, keepdims=True))
        return (top[0] + jnp.log((jnp.exp(logs - top) * factors).sum(0))).reshape(shape)

    def _drawn(self, outputs: Array, uniform: Array) -> Array:
        """Draws real numbers: one uniform number gives a component and a value of it."""
        log_weights, means, widths = (
            jnp.moveaxis(part, 0, -1) for part in self._parts(jnp.moveaxis(outputs, -1, 0))
        )
        weights = jnp.exp(log_weights)
        index = _index_at(weights, uniform)[..., None]

        def chosen(x: Array) -> Array:
            return jnp.take_along_axis(x, index, axis=-1)[..., 0]

        # The place of the number within the component's part of [0, 1).
        limits = jnp.finfo(uniform.dtype)
        before = chosen(jnp.cumsum(weights, axis=-1) - weights)
        rest = (uniform - before) / jnp.maximum(chosen(weights), limits.tiny)
        rest = jnp.clip(rest, limits.eps, 1 - limits.eps)
        return chosen(means) + chosen(widths) * self._quantile(rest)

    def _first_means(self, rows: Array) -> Array:
        """Returns M numbers spread over (-1, 1), so that the components of a new model differ."""
        places = jnp.asarray(np.linspace(-1, 1, self.mixtures + 2)[1:-1], rows.dtype)
        return places.reshape((-1,) + (1,) * (rows.ndim - 1))


@dataclass(frozen=True)
class _Density(_Mixture):
    """The density of a mixture: each component is a location and scale family."""

    _unit: ClassVar[Any]
    """Exponent and factor of the density of a component of mean 0 and width 1."""

    def _component(self, values: Array, mean: Array, width: Array) -> tuple[Array, Array]:
        exponent, factor = self._unit((values - mean) / width)
        return exponent, factor / width

    def draw(self, outputs: Array, uniform: Array, temperature: Array) -> Array:
        return self._drawn(outputs, uniform)  # Without logits there is no temperature.

    def log_prob_of_draw(self, outputs: Array, values: Array, temperature: Array) -> Array:
        return self.log_prob(outputs, values)


@dataclass(frozen=True)
class _OverLevels(_Mixture):
    """Mixtures of components that lie over K levels.

    The means are offsets, in half ranges, from places spread over the levels. A width is at least a
    twentieth of a cell, narrow enough for a value that is certain, and at most five ranges.
    """

    levels: int

    def _parts(self, rows: Array) -> tuple[Array, Array, Array]:
        weights, means, widths = jnp.split(rows, 3)
        half = self.levels / 2
        first = max(half / self.mixtures, 0.05)
        widths = jnp.exp(jnp.clip(widths + math.log(first), math.log(0.05), math.log(10 * half)))
        means = (means + self._first_means(rows) + 1) * half
        return jax.nn.log_softmax(weights, axis=0), means, widths


@dataclass(frozen=True)
class DiscretizedMixture(_OverLevels, Discrete):
    """A mixture of discretised distributions: each level has the probability of its cell.

    The lowest and the highest cell extend to infinity, so that the probabilities add up to one. A
    subclass has one method, `mass`.
    """

    @abc.abstractmethod
    def mass(self, low: Array, high: Array, size: Array) -> tuple[Array, Array]:
        """Returns the exponent and the factor of the mass of cells: it is exp(exponent) * factor.

        The distribution has mean 0 and width 1, and a cell is [low, high), whose ends may be
        infinite. Its `size` is high - low, of which the difference would lose digits.
        """

    @property
    def digit_sizes(self) -> tuple[int, ...]:
        digits = -(-(self.levels - 1).bit_length() // 4) if self.levels >= 64 else 1
        return tuple(16**digit for digit in reversed(range(digits)))

    def logits(self, outputs: Array) -> Array:
        levels = jnp.arange(self.levels).reshape((1,) * (outputs.ndim - 1) + (-1,))
        log_probs = self._log_masses(outputs, levels)
        return log_probs[..., 1:] - log_probs[..., :1] if self.levels == 2 else log_probs

    def digit_logits(self, outputs: Array, first: Array, size: int) -> Array:
        if len(self.digit_sizes) == 1:
            return self.logits(outputs)
        starts = jnp.arange(0, self.levels, size)[:16].reshape((1,) * first.ndim + (-1,))
        levels = first[..., None] + starts
        masses = self._log_masses(outputs, levels, size)
        return jnp.where(levels < self.levels, masses, -jnp.inf)

    def log_prob_of_draw(self, outputs: Array, values: Array, temperature: Array) -> Array:
        directly = functools.partial(self.log_prob, outputs, values)
        tempered = functools.partial(super().log_prob_of_draw, outputs, values, temperature)
        return jax.lax.cond(temperature == 1, directly, tempered)

    def _log_masses(self, outputs: Array, levels: Array, size: int = 1) -> Array:
        """Returns the logarithms of the masses of `size` levels from each of some, `[..., N]`."""
        levels = levels.astype(outputs.dtype)
        parts = (part[..., None] for part in self._parts(jnp.moveaxis(outputs, -1, 0)))
        # One by one: an array with an axis of components and one of levels would be large.
        logs, factors = [], []
        for log_weight, mean, width in zip(*parts, strict=True):
            exponent, factor = self._component(levels, mean, width, size)
            logs.append(log_weight + exponent)
            factors.append(factor)
        top = jax.lax.stop_gradient(functools.reduce(jnp.maximum, logs))
        terms = [jnp.exp(log - top) * factor for log, factor in zip(logs, factors, strict=True)]
        # With the barrier XLA keeps their sum, and not each of them, for what follows.
        return jax.lax.optimization_barrier(top + jnp.log(sum(terms)))

    def _component(
        self, value: Array, mean: Array, width: Array, size: int = 1
    ) -> tuple[Array, Array]:
        lowest, highest = value == 0, value >= self.levels - size
        a, cell = (value - mean) / width, size / width
        low, high = jnp.where(lowest, -jnp.inf, a), jnp.where(highest, jnp.inf, a + cell)
        return self.mass(low, high, jnp.where(lowest | highest, jnp.inf, cell))


@dataclass(frozen=True)
class DiscretizedLogisticMixture(DiscretizedMixture):
    """A discretised mixture of logistic distributions."""

    _quantile = staticmethod(_logit)

    def mass(self, low: Array, high: Array, size: Array) -> tuple[Array, Array]:
        # sigma(b) - sigma(a) = sigma(b) sigma(-a) (1 - exp(a - b)) loses no digits, where
        # sigma(x) = exp(min(x, 0)) / (1 + exp(-|x|)).
        exponent = jnp.minimum(high, 0) - jnp.maximum(low, 0)
        below, above = 1 + jnp.exp(-jnp.abs(high)), 1 + jnp.exp(-jnp.abs(low))
        return exponent, -jnp.expm1(-size) / (below * above)

    def draw(self, outputs: Array, uniform: Array, temperature: Array) -> Array:
        def directly() -> Array:
            levels = jnp.floor(self._drawn(outputs, uniform))
            return jnp.clip(levels, 0, self.levels - 1).astype(jnp.int32)

        tempered = functools.partial(super().draw, outputs, uniform, temperature)
        return jax.lax.cond(temperature == 1, directly, tempered)


@dataclass(frozen=True)
class CoupledLogisticMixture(DiscretizedLogisticMixture):
    """A mixture whose components are of whole pixels (Salimans et al., "PixelCNN++", section 2.2).

    A component has one weight for a pixel, and its mean in a channel is linear in the values of
    earlier channels. Given these, a channel has a mixture again, of new weights and shifted means.

    The outputs for a pixel are M logits of weights, C · M means, C · M logarithms of widths, and
    C (C - 1) / 2 · M slopes, one for each pair of a channel and an earlier one: the tanh of a slope
    times the earlier value, scaled to [-1, 1], is added to the mean.
    """

    coupled: ClassVar[bool] = True

    @property
    def predictions(self) -> int:
        return 0

    def pixel_outputs(self, channels: int) -> int:
        return self.mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)

    def split_channels(self, outputs: Array, values: Array) -> Array:
        shape, channels, mixtures = values.shape, values.shape[-1], self.mixtures
        # Long rows, as in `log_prob`: [..., M, N].
        rows = outputs.reshape(-1, outputs.shape[-1]).T
        parts = rows.reshape(-1, mixtures, rows.shape[-1])
        ends = [1, 1 + channels, 1 + 2 * channels]
        (log_weights,), means, widths, coefficients = jnp.split(parts, ends)
        slopes = iter(jnp.tanh(coefficients))
        values = values.reshape(-1, channels).T.astype(outputs.dtype)
        inputs, of_channels = self.inputs(values, outputs.dtype), []
        for channel in range(channels):
            mean = means[channel]
            for earlier in range(channel):
                mean = mean + next(slopes) * inputs[None, earlier]
            here = jnp.concatenate([log_weights, mean, widths[channel]])
            of_channels.append(here)
            exponent, factor = self._component(values[None, channel], *self._parts(here)[1:])
            log_weights = log_weights + exponent + jnp.log(factor)
        return jnp.stack(of_channels).transpose(2, 0, 1).reshape(*shape, self.outputs)


@dataclass(frozen=True)
class LogisticMixture(_OverLevels, _Density):
    """The density of a mixture of logistics, for dequantised values.

    Draws may lie outside [0, K), since a logistic distribution has no ends.
    """

    dequantised: ClassVar[bool] = True
    _quantile = staticmethod(_logit)

    def inputs(self, images: Array, dtype: DTypeLike) -> Array:
        return images.astype(dtype) * (2 / self.levels) - 1

    @staticmethod
    def _unit(z: Array) -> tuple[Array, ArrayLike]:
        return -jnp.abs(z), (1 + jnp.exp(-jnp.abs(z))) ** -2


@dataclass(frozen=True)
class GaussianMixture(_Density):
    """The density of a mixture of Gaussians, for real values of about mean 0 and variance 1.

    A width is from 1e-4, so that the density of a value that repeats stays finite, to 1e4.
    """

    standardised: ClassVar[bool] = True
    _quantile = staticmethod(jax.scipy.special.ndtri)

    def inputs(self, images: Array, dtype: DTypeLike) -> Array:
        return images.astype(dtype)

    def _parts(self, rows: Array) -> tuple[Array, Array, Array]:
        weights, means, widths = jnp.split(rows, 3)
        widths = jnp.exp(jnp.clip(widths, math.log(1e-4), math.log(1e4)))
        return jax.nn.log_softmax(weights, axis=0), means + 2 * self._first_means(rows), widths

    @staticmethod
    def _unit(z: Array) -> tuple[Array, ArrayLike]:
        return -z * z / 2, (2 * math.pi) ** -0.5


OUTPUTS: dict[str, type[Likelihood]] = {
    "softmax": Softmax,
    "discretized_logistic_mixture": DiscretizedLogisticMixture,
    "coupled_logistic_mixture": CoupledLogisticMixture,
    "logistic_mixture": LogisticMixture,
    "gaussian_mixture": GaussianMixture,
}
"""The likelihoods by the names that `model.output` takes; add one of your own."""


def likelihood_class(config: ModelConfig) -> type[Likelihood]:
    """Returns the class of likelihood that `config.output` names, or raises `UserError`."""
    check(config, "model.output", f"be one of {', '.join(OUTPUTS)}", config.output in OUTPUTS)
    return OUTPUTS[config.output]


def likelihood_for(config: ModelConfig, levels: int) -> Likelihood:
    """Returns the likelihood that `config.output` names."""
    class_: Any = likelihood_class(config)
    values = dataclasses.asdict(config) | {"levels": levels}
    return class_(**{field.name: values[field.name] for field in dataclasses.fields(class_)})


def value_dtype(levels: int) -> np.dtype:
    """Returns the smallest of uint8, uint16 and int32 that holds the values 0 to `levels` - 1."""
    return np.min_scalar_type(levels - 1) if levels <= 2**16 else np.dtype(np.int32)


def _index_at(probabilities: Array, uniform: Array) -> Array:
    """Returns the index in the last axis at which the cumulative sum passes a uniform number."""
    cumulative = jnp.cumsum(probabilities, axis=-1)
    # Scaled by the sum itself, which may differ from one in the last digits.
    place = uniform[..., None] * cumulative[..., -1:]
    return (cumulative[..., :-1] <= place).sum(-1, dtype=jnp.int32)


def dequantize(images: Array | np.ndarray, key: Array) -> Array:
    """Adds uniform noise from [0, 1) to images, `[B, H, W, C]` integers; `floor` removes it.

    A discrete model implies a density of the result that is constant over each cell [x, x + 1): its
    log-density is the log-probability of the images. Any other density implies a log-probability of
    the images that is at least the average log-density over the noise.

    Raises:
        UserError: The images are not integers; they may have noise already.

    >>> bool((np.floor(prnn.dequantize(np.full((2, 4, 4, 1), 7), jax.random.key(0))) == 7).all())
    True
    """
    dtype = jnp.asarray(images).dtype
    if dtype.kind not in "biu":
        raise UserError(f"images must be integers to dequantize, got {dtype} values")
    low = jnp.asarray(images, jnp.result_type(float))
    noisy = low + jax.random.uniform(key, low.shape, low.dtype)
    return jnp.minimum(noisy, jnp.nextafter(low + 1, low))  # Rounding may have reached x + 1.


def bits_per_dim(nats: Any, num_values: Any) -> Any:
    """Converts nats per image to bits per value of an image of `num_values` = H * W * C values."""
    return nats / (num_values * math.log(2))
