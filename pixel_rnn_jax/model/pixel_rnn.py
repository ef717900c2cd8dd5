"""PixelRNN: the distribution of whole images, as pure functions of parameters and images.

A model is a chain of scales, the coarsest first; a model of one scale is a chain of one. In a
Multi-Scale PixelRNN (section 3.6) every scale but the first is conditioned on the image of the
scale before it, which consists of the top-left pixel of each block of its own image.

In the exact form the pixels that the smaller image x_s gives are copied: they cost nothing and are
never drawn, and p(x) = p(x_s) * prod p(x_i | x_<i, x_s) over the others is a probability. In the
paper's plain form the larger image is drawn whole. It may contradict the smaller one, so that the
product adds up to less than one over all images.
"""

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.model import Scale, chain, checks, likelihoods
from pixel_rnn_jax.model.config import ModelConfig, check
from pixel_rnn_jax.model.generation import complete, sample
from pixel_rnn_jax.model.generation.complete import Completion
from pixel_rnn_jax.system.errors import UserError

PyTree = Any


@dataclass(frozen=True)
class PixelRNN:
    """An exact-likelihood model of images (sections 2 and 3).

    It holds no arrays: `init` returns the parameters, a dict with an entry for each scale, and the
    other methods are pure functions of them, for all transformations of JAX and any batch size.
    They check shapes and types, and the values of arrays that are no tracers. Models are compared
    by value, as static arguments of `jax.jit` should be.

    Images are `[B, H, W, C]` integers from 0 to K - 1. H and W need not be the training's, since no
    parameter depends on them: only `total` fits one size, and scales need multiples of a stride.
    With `output="logistic_mixture"` images are floats from 0 to K, and log-probabilities are
    log-densities per unit of a level. With `output="gaussian_mixture"` they are any floats x, the
    model sees (x - mean) / std, and log-densities are per unit of x.

    `condition` is `[B]` integers for a model with `num_classes`, `[B, D]` floats with
    `condition_vector`, `[B, H, W, D]` floats with `condition_map`, and None for any other.

    Attributes:
        config: The architecture, of all scales.
        image_shape: (H, W, C) of the images of the training, and by default of samples.
        levels: K, the number of values that a channel of a pixel can have, from 2 to 2**24; 0 for
            `output="gaussian_mixture"`.
        mean: Subtracted from real values, `[C]`; by default 0.
        std: Divides them then, `[C]`; by default 1.

    Raises:
        UserError: The shape or the number of levels is impossible, features are too few for C, or
            the scales do not fit the shape.

    >>> model = prnn.PixelRNN(prnn.ModelConfig(layers=1, features=4), (4, 4, 1), levels=2)
    >>> params, images = model.init(jax.random.key(0)), np.zeros((5, 4, 4, 1), int)
    >>> jax.jit(model.log_prob)(params, images).shape
    (5,)
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        values = checks.check_format(
            self.config, self.image_shape, self.levels, self.mean, self.std
        )
        for name, value in values.items():
            object.__setattr__(self, name, value)
        _ = self.scales  # Checks the number of features, and the scales.

    def sized(self, height: int, width: int) -> "PixelRNN":
        """Returns the model of images of another size, with the same parameters.

        Raises:
            UserError: The scales (`model.scales`) or a `model.total` do not fit the size.
        """
        return _sized(self, height, width)

    @property
    def stride(self) -> int:
        """The number of which H and W must be multiples, for the scales."""
        return self.scales[0].stride

    @functools.cached_property
    def scales(self) -> tuple[Scale, ...]:
        """The chain, coarsest first; the last scale is the whole image."""
        return chain(self.config, self.image_shape, self.levels)

    @property
    def likelihood(self) -> likelihoods.Likelihood:
        """The distribution of a value, given the outputs of its network."""
        return self.scales[-1].network.likelihood

    @property
    def recurrent(self) -> bool:
        """Whether a layer scans its images."""
        return any(scale.network.recurrent for scale in self.scales)

    @property
    def num_values(self) -> int:
        """H * W * C, the number of values of an image."""
        return math.prod(self.image_shape)

    def init(self, key: Array) -> PyTree:
        """Returns random parameters, `{"scale_0": ..., ...}`."""
        checks.check_key(key)
        images = jnp.zeros((1, *self.image_shape), self.scales[0].network.param_dtype)
        condition = checks.no_condition(self.config, self.image_shape, images.dtype)
        return {
            scale.name: scale.network.init(
                jax.random.fold_in(key, i) if i else key, *scale.inputs(images, condition)
            )["params"]
            for i, scale in enumerate(self.scales)
        }

    def log_prob(
        self,
        params: PyTree,
        images: ArrayLike,
        condition: ArrayLike | None = None,
        *,
        per_value: bool = False,
    ) -> Array:
        """Returns log p(image) in nats, `[B]`, or with `per_value` its terms, `[B, H, W, C]`.

        The term of a value is its log-probability given all values before it in generation order:
        by scale, row, column and channel. In the plain multi-scale form a pixel that belongs to
        several scales has the sum of their terms.

        Raises:
            UserError: The images or the condition do not fit the model.
        """
        terms = -self.nats_by_scale(params, images, condition, per_value=True).sum(axis=1)
        return terms if per_value else terms.sum(axis=(1, 2, 3))

    def nats_by_scale(
        self,
        params: PyTree,
        images: ArrayLike,
        condition: ArrayLike | None = None,
        *,
        per_value: bool = False,
        dropout_keys: Array | None = None,
    ) -> Array:
        """Returns the share of each scale in -log p(image), `[B, S]` in nats; raises as `log_prob`.

        With `per_value` it is the share of each value, `[B, S, H, W, C]`. With `dropout_keys`,
        `[B]` keys of `jax.random`, there is dropout, as in training.
        """
        images, condition = checks.check_images(self, images, condition)
        model, values = self.sized(*images.shape[1:3]), self._standardised(images)
        shares = []
        keys = dropout_keys
        for number, scale in enumerate(model.scales):
            if dropout_keys is not None:
                keys = jax.vmap(jax.random.fold_in, (0, None))(dropout_keys, number)
            outputs = scale.bind(params)(*scale.inputs(values, condition), dropout_keys=keys)
            terms = self.likelihood.log_prob(outputs, scale.subsample(values))
            terms = jnp.where(scale.copied[None, ..., None], 0, terms - self._log_std)
            whole = scale.scatter(terms, model.image_shape) if per_value else terms.sum((1, 2, 3))
            shares.append(-whole)
        return jnp.stack(shares, axis=1)

    def conditionals(
        self, params: PyTree, images: ArrayLike, condition: ArrayLike | None = None
    ) -> Array:
        """Returns the log-probabilities of all levels of each value, `[B, H, W, C, K]`, in nats.

        A value has the distribution of the scale that gives it, given all values before it. Raises
        as `log_prob` and `discrete_likelihood`.
        """
        likelihood = self.discrete_likelihood()
        images, condition = checks.check_images(self, images, condition)
        scales = self.sized(*images.shape[1:3]).scales

        *coarser, levels = (
            likelihood.conditionals(scale.bind(params)(*scale.inputs(images, condition)))
            for scale in scales
        )
        for scale, coarse in zip(scales[-2::-1], coarser[::-1], strict=True):
            levels = levels.at[:, :: scale.stride, :: scale.stride].set(coarse)
        return levels

    def discrete_likelihood(self) -> likelihoods.Discrete:
        """Returns the likelihood of a model that gives images probabilities, value by value.

        Raises:
            UserError: The model is a density, or multi-scale in the plain form.
        """
        if not isinstance(self.likelihood, likelihoods.Discrete):
            raise UserError("a density (model.output) has no conditionals and no codec")
        self._refuse_plain()
        return self.likelihood

    def sample(
        self,
        params: PyTree,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        size: tuple[int, int] | None = None,
        temperature: float | Array = 1.0,
        first: int | Array = 0,
    ) -> Array:
        """Draws n images `[n, H, W, C]`; n is known when the function is compiled.

        Image i depends on the key, `first + i` and its condition: `first` numbers images of one key
        in several calls. `size` is (H, W), by default the size of the training's images. The
        temperature divides the logits; 0 takes the most probable values.
        Images are integers of the smallest of uint8, uint16 and int32 that holds K - 1, or floats.

        Raises:
            UserError: n, the size, the temperature (of a density: 1) or the condition is
                impossible.
        """
        model = self.sized(*size) if size else self
        condition, temperature = checks.check_sampling(model, key, n, condition, temperature)
        indices = jnp.arange(n) + first
        values, _ = sample.sample(model.scales, params, key, indices, condition, temperature)
        return self._in_units(values)

    def sample_and_log_prob(
        self,
        params: PyTree,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        size: tuple[int, int] | None = None,
        temperature: float | Array = 1.0,
        first: int | Array = 0,
    ) -> tuple[Array, Array]:
        """As `sample`; also returns the log-probabilities under which they are drawn, `[n]`.

        At another temperature than 1 the model itself has other ones: `log_prob` gives them. The
        plain multi-scale form has none.
        """
        self._refuse_plain()
        model = self.sized(*size) if size else self
        condition, temperature = checks.check_sampling(model, key, n, condition, temperature)
        indices, height, width = jnp.arange(n) + first, *model.image_shape[:2]
        values, log_probs = sample.sample(
            model.scales, params, key, indices, condition, temperature, with_log_prob=True
        )
        return self._in_units(values), log_probs - height * width * self._log_std.sum()

    def complete(
        self,
        params: PyTree,
        key: Array,
        images: ArrayLike,
        known: ArrayLike,
        condition: ArrayLike | None = None,
        *,
        particles: int = 1,
        first: int | Array = 0,
    ) -> Completion:
        """Draws the unknown values of partly known images; known values stay as they are.

        With one particle each unknown value is drawn given all values before it, which is exact if
        all known values come first in generation order. For any other mask use more, say 64: they
        are weighted by the known values, and one is drawn by its weight. Its distribution tends to
        the exact one as their number grows.

        Image i depends on the key, `first + i`, its known values and its condition. Unknown values
        of the images `[B, H, W, C]` may be any; `known` are booleans `[H, W]`, `[H, W, C]`,
        `[B, H, W, 1]` or `[B, H, W, C]`.

        Raises:
            UserError: As `log_prob`; or the mask or the number of particles is impossible.
        """
        checked = checks.check_completion(self, key, images, known, condition, particles)
        images, known, condition = checked
        scales = self.sized(*images.shape[1:3]).scales
        dtype = jnp.int32 if self.likelihood.discrete else scales[0].network.param_dtype
        values, indices = self._standardised(images).astype(dtype), jnp.arange(images.shape[0])
        result = complete.complete(
            scales, params, key, indices + first, values, known, condition, particles=int(particles)
        )
        completed = self._in_units(result.images)
        log_std = jnp.where(known, self._log_std, 0).sum(axis=(1, 2, 3))
        completed = jnp.where(known, images.astype(completed.dtype), completed)
        return result._replace(images=completed, log_evidence=result.log_evidence - log_std)

    def _refuse_plain(self) -> None:
        if self.config.redraws_coarse:
            raise UserError("the plain form (model.copy_coarse=false) gives images no probability")

    @property
    def _units(self) -> np.ndarray:
        """Mean and standard deviation, `[2, 1, 1, 1, C]`; without any, 0 and 1."""
        dtype = self.scales[0].network.param_dtype
        return np.array([self.mean or (0,), self.std or (1,)], dtype).reshape(2, 1, 1, 1, -1)

    @property
    def _log_std(self) -> np.ndarray:
        """Log-density of standardised values less that per unit of x, `[1, 1, 1, C]`."""
        return np.log(self._units[1])

    def _standardised(self, images: Array) -> Array:
        mean, std = self._units
        return (images.astype(std.dtype) - mean) / std if self.std else images

    def _in_units(self, values: Array) -> Array:
        if self.likelihood.discrete:
            return values.astype(likelihoods.value_dtype(self.levels))
        mean, std = self._units
        return values * std + mean if self.std else values


@functools.lru_cache(maxsize=256)
def _sized(model: PixelRNN, height: int, width: int) -> PixelRNN:
    if (height, width) == model.image_shape[:2]:
        return model
    config, stride = model.config, model.stride
    rule = f"be 0 for images of {height}x{width}, since it is for images of {model.image_shape}"
    check(config, "model.total", rule, not config.total)
    if height % stride or width % stride:
        raise UserError(f"images must have sides of multiples of {stride}, got {height}x{width}")
    scales = tuple(height // scale.stride for scale in model.scales) if config.scales else ()
    config = dataclasses.replace(config, scales=scales)
    return dataclasses.replace(
        model, config=config, image_shape=(height, width, model.image_shape[-1])
    )
