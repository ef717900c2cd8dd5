"""PixelRNN: the distribution of whole images, as pure functions of parameters and images.

A model is a chain of scales, the coarsest first; a model of one scale is a chain of one. In a
Multi-Scale PixelRNN (section 3.6) every scale but the first is conditioned on the image of the
scale before it, which consists of the top-left pixel of each block of its own image.

In the exact form the pixels that the smaller image x_s gives are copied: they cost nothing and are
never drawn, and p(x) = p(x_s) * prod p(x_i | x_<i, x_s) over the others is a probability. In the
paper's plain form the larger image is drawn whole. It may contradict the smaller one, so that the
product adds up to less than one over all images.
"""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.data import value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation import complete, sample
from pixel_rnn_jax.generation.complete import Completion
from pixel_rnn_jax.models import Scale, chain, checks, likelihoods
from pixel_rnn_jax.models.likelihoods import Likelihood
from pixel_rnn_jax.models.network import CPU_PACK
from pixel_rnn_jax.models.parts import in_parts
from pixel_rnn_jax.models.units import Units

PyTree = Any
MOST_LEVELS = 2**24
"""Float32 tells no more integers apart."""
CPU_PIXELS = 1024
"""Pixels that a CPU computes at a time; about one image of MNIST or CIFAR-10."""


@dataclass(frozen=True)
class PixelRNN:
    """An exact-likelihood model of images of one shape (sections 2 and 3).

    It holds no arrays: `init` returns the parameters, a dict with an entry for each scale, and the
    other methods are pure functions of them. These work under `jax.jit`, `grad`, `vmap` and
    `shard_map`, in `lax.scan`, and with any batch size. They check shapes and types always, and
    values where there are any: tracers have none. Models are compared by value, as static arguments
    of `jax.jit` should be.

    Images are `[B, H, W, C]` integers from 0 to K - 1. With `output="logistic_mixture"` they are floats
    from 0 to K, and log-probabilities are log-densities per unit of a level. With
    `output="gaussian_mixture"` they are any floats x, the model sees (x - offset) / scale, and
    log-densities are per unit of x.

    `condition` is `[B]` integers for a model with `classes`, `[B, D]` floats with
    `condition_vector`, `[B, H, W, D]` floats with `condition_map`, and None for any other.

    Attributes:
        config: The architecture, of all scales.
        image_shape: (H, W, C).
        levels: K, the number of values that a channel of a pixel can have, from 2 to `MOST_LEVELS`;
            0 for `output="gaussian_mixture"`.
        offset: What is subtracted from real values, `[C]`; by default 0.
        scale: What they are divided by then, `[C]`; by default 1.

    Raises:
        UserError: The shape or the number of levels is impossible, features are too few for C, or
            the scales do not fit the shape.
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int = 0
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.config, ModelConfig):
            raise UserError(f"config must be a ModelConfig, got {self.config!r}")
        shape, levels = self.image_shape, self.levels
        if not isinstance(shape, Sequence) or not all(map(checks.is_integer, (*shape, levels))):
            raise UserError(f"image_shape and levels must be integers, got {shape} and {levels}")
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"image_shape must be (H, W, C) with sizes of at least 1, got {shape}")
        # NumPy's integers would have another digest, and other types in what is computed of them.
        object.__setattr__(self, "image_shape", tuple(map(int, shape)))
        object.__setattr__(self, "levels", int(self.levels))
        real = self.config.output == "gaussian_mixture"
        if real and self.levels:
            raise UserError(
                f'levels must be 0 for model.output "gaussian_mixture", got {self.levels}: real '
                "values have no levels"
            )
        if not real and not 2 <= self.levels <= MOST_LEVELS:
            raise UserError(f"levels must be from 2 to {MOST_LEVELS:,}, got {self.levels:,}")
        for name, default in (("offset", 0.0), ("scale", 1.0)):
            given = getattr(self, name)
            try:
                numbers_ = tuple(map(float, given)) or (default,) * shape[-1] * real
            except (TypeError, ValueError):
                numbers_ = (math.nan,)
            if len(numbers_) != shape[-1] * real or not all(map(math.isfinite, numbers_)):
                raise UserError(
                    f"{name} must be a finite number for each of the {shape[-1]} channels of real "
                    f"values, and () for levels, got {given!r}"
                )
            object.__setattr__(self, name, numbers_)
        if real and min(self.scale) <= 0:
            raise UserError(f"scale must be greater than 0, got {self.scale}")
        _ = self.scales  # Checks the number of features, and the scales.

    def __reduce__(self) -> tuple[Any, ...]:
        return PixelRNN, (self.config, self.image_shape, self.levels, self.offset, self.scale)

    @functools.cached_property
    def scales(self) -> tuple[Scale, ...]:
        """The chain, coarsest first; the last scale is the whole image."""
        return chain(self.config, self.image_shape, self.levels)

    @property
    def likelihood(self) -> Likelihood:
        """What the outputs of the networks mean."""
        return likelihoods.of(self.config, self.levels)

    @property
    def dims(self) -> int:
        """H * W * C, the number of values of an image."""
        return math.prod(self.image_shape)

    def parts(self, images: int) -> int:
        """Returns in how many equal parts to compute so many images, one part after another.

        On a CPU the maps of a part stay in its caches; elsewhere it is one part.
        """
        if jax.default_backend() != "cpu" or not isinstance(images, int):
            return 1
        height, width, _ = self.image_shape
        most = max(CPU_PIXELS // (height * width), 1)
        if any(s.network.config.architecture != "pixel_cnn" for s in self.scales):
            most *= CPU_PACK  # Which share the steps of a scan.
        parts = range(1, images + 1)
        return next((n for n in parts if images % n == 0 and images // n <= most), 1)

    def init(self, key: Array) -> PyTree:
        """Returns random parameters, `{"scale_0": ..., ...}`."""
        checks.check_key(key)
        images = jnp.zeros((1, *self.image_shape), self.scales[0].network.param_dtype)
        shape, kind = checks.condition_form(self.config, self.image_shape)
        dtype = jnp.int32 if self.config.num_classes else images.dtype
        condition = jnp.zeros((1, *shape), dtype) if kind else None
        if len(self.scales) == 1:
            return {"scale_0": self.scales[0].network.init(key, images, condition)["params"]}
        return _Networks(self).init(key, images, condition)["params"]

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

        def log_prob(params: PyTree, images: Array, condition: Array | None) -> Array:
            numbers_ = range(len(self.scales))
            terms = [self._whole(i, self._terms(i, params, images, condition)) for i in numbers_]
            total = functools.reduce(jnp.add, terms)
            return total if per_value else total.sum(axis=(1, 2, 3))

        return self._evaluated(log_prob, params, images, condition)

    def loss(self, params: PyTree, images: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """Returns the mean of -log p(image), in nats per image; raises as `log_prob`."""
        return -self.log_prob(params, images, condition).mean()

    def nats_by_scale(
        self,
        params: PyTree,
        images: ArrayLike,
        condition: ArrayLike | None = None,
        *,
        scales: Sequence[int] | None = None,
        per_value: bool = False,
    ) -> Array:
        """Returns the share of each scale in -log p(image), `[B, S]` in nats.

        `scales` are the numbers of those to compute; None stands for all. With `per_value` it is
        the share of each value, `[B, S, H, W, C]`.

        Raises:
            UserError: As `log_prob`; or there is no scale of such a number, or none is wanted.
        """
        every = range(len(self.scales))
        wanted = every if scales is None else scales
        if not len(wanted) or not set(wanted) <= set(every):
            raise UserError(f"scales must be some of {list(every)}, got {scales}")

        def nats(params: PyTree, images: Array, condition: Array | None) -> Array:
            terms = [self._terms(number, params, images, condition) for number in wanted]
            if per_value:
                whole = [self._whole(*each) for each in zip(wanted, terms, strict=True)]
                return -jnp.stack(whole, axis=1)
            return jnp.stack([-own.sum(axis=(1, 2, 3)) for own in terms], axis=-1)

        return self._evaluated(nats, params, images, condition)

    def conditionals(
        self, params: PyTree, images: ArrayLike, condition: ArrayLike | None = None
    ) -> Array:
        """Returns the log-probabilities of all levels of each value, `[B, H, W, C, K]`, in nats.

        A value has the distribution of the scale that gives it, given all values before it.

        Raises:
            UserError: As `log_prob` and `discrete_likelihood`.
        """
        likelihood = self.discrete_likelihood()

        def conditionals(params: PyTree, images: Array, condition: Array | None) -> Array:
            *coarser, result = (
                likelihood.conditionals(self._outputs(i, params, images, condition))
                for i in range(len(self.scales))
            )
            for scale, own in reversed([*zip(self.scales, coarser, strict=False)]):
                result = result.at[:, :: scale.stride, :: scale.stride].set(own)
            return result

        return self._evaluated(conditionals, params, images, condition)

    def discrete_likelihood(self) -> likelihoods.Discrete:
        """Returns the likelihood of a model that gives images probabilities, value by value.

        Raises:
            UserError: The model is a density, or multi-scale in the plain form.
        """
        if not isinstance(self.likelihood, likelihoods.Discrete):
            raise UserError(
                "a continuous model gives images no probability, so that it has no conditionals "
                "and no codec: use one with discrete outputs"
            )
        self._refuse_plain("no conditionals and no codec")
        return self.likelihood

    def sample(
        self,
        params: PyTree,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        temperature: float | Array = 1.0,
        first: int | Array = 0,
    ) -> Array:
        """Draws images `[n, H, W, C]`.

        Args:
            params: The parameters.
            key: A key of `jax.random`. Image i depends on it, `first + i` and the condition.
            n: Number of images, known when the function is compiled.
            condition: That of the n images.
            temperature: Logits are divided by it; 0 takes the most probable value of each pixel.
            first: Number of the first image, for images of one key that are drawn in turns.

        Returns:
            Integers of the smallest of uint8, uint16 and int32 that K fits in; floats of a density.

        Raises:
            UserError: n or the temperature is negative, the temperature of a density is not 1, the
                key is not one of `jax.random`, or the condition does not fit.
        """
        condition, temperature = self.check_sampling(key, n, condition, temperature)
        indices = jnp.arange(n) + first
        values, _ = sample.sample(self.scales, params, key, indices, condition, temperature)
        return self._in_units(values)

    def sample_and_log_prob(
        self,
        params: PyTree,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        temperature: float | Array = 1.0,
        first: int | Array = 0,
    ) -> tuple[Array, Array]:
        """Returns what `sample` does, and the log-probabilities under which it is drawn, `[n]`.

        At another temperature than 1 these are not those of the model, which `log_prob` gives.

        Raises:
            UserError: As `sample`; or the model is in the plain multi-scale form.
        """
        self._refuse_plain("no log-probabilities of samples")
        condition, temperature = self.check_sampling(key, n, condition, temperature)
        indices, height, width = jnp.arange(n) + first, *self.image_shape[:2]
        values, log_probs = sample.sample(
            self.scales, params, key, indices, condition, temperature, with_log_prob=True
        )
        return self._in_units(values), log_probs - height * width * self._units.log_scale.sum()

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
        """Draws the unknown values of partly known images.

        With one particle each unknown value is drawn given all values before it. That is exact if
        every unknown value comes after all known ones in generation order, as with the upper half
        known and one scale. For any other mask use more, say 64: they are weighted by how well they
        fit the known values that come later, and one is drawn by its weight. Its distribution tends
        to the exact one as their number grows.

        Args:
            params: The parameters.
            key: A key of `jax.random`. Image i depends on it, `first + i` and the other arguments.
            images: `[B, H, W, C]`; where unknown, any values that the model takes.
            known: Booleans: `[H, W]`, `[H, W, C]`, `[B, H, W, 1]` or `[B, H, W, C]`.
            condition: That of the images.
            particles: Number of completions that are drawn for each image, of which one is kept.
            first: Number of the first image, for images that are completed in turns.

        Returns:
            The completed images, in which known values are unchanged, and how good they are.

        Raises:
            UserError: As `log_prob`; or the key is not one of `jax.random`, the mask does not fit,
                or there are no particles.
        """
        images, known, condition = self.check_completion(key, images, known, condition, particles)
        found = complete.complete(
            self.scales,
            params,
            key,
            jnp.arange(images.shape[0]) + first,
            self._units.standardised(images).astype(
                jnp.int32 if self.likelihood.discrete else self.scales[0].network.param_dtype
            ),
            known,
            condition,
            particles=int(particles),
        )
        completed = self._in_units(found.images)
        return Completion(
            images=jnp.where(known, images.astype(completed.dtype), completed),
            log_evidence=found.log_evidence
            - jnp.where(known, self._units.log_scale, 0).sum(axis=(1, 2, 3)),
            effective_sample_size=found.effective_sample_size,
        )

    def checked(self, images: ArrayLike, condition: ArrayLike | None) -> tuple[Array, Array | None]:
        """Returns images and their condition as JAX arrays; raises as `log_prob`."""
        found = checks.check_images(images, self.config, self.image_shape, self.levels)
        return found, checks.check_condition(
            condition, found.shape[0], self.config, self.image_shape
        )

    def check_completion(
        self,
        key: Array,
        images: ArrayLike,
        known: ArrayLike,
        condition: ArrayLike | None,
        particles: int,
    ) -> tuple[Array, Array, Array | None]:
        """Returns images, zero where unknown, what is known and the condition of `complete`."""
        checks.check_key(key)
        if not checks.is_integer(particles) or particles < 1:
            raise UserError(f"particles must be an integer of at least 1, got {particles!r}")
        found = checks.check_form(images, self.config, self.image_shape, self.levels)
        mask = checks.check_known(known, found.shape)
        if isinstance(found, np.ndarray) and checks.has_values(mask):
            # Which JAX would cut off if its integers have 64 bits.
            found = np.where(mask, found, found.dtype.type(0))
        else:
            found = jnp.where(mask, found, found.dtype.type(0))
        found, given = self.checked(found, condition)
        return found, jnp.asarray(mask), given

    def check_sampling(
        self, key: Array, n: int, condition: ArrayLike | None, temperature: float | Array
    ) -> tuple[Array | None, Array]:
        """Returns the condition and the temperature of `sample`, checked."""
        checks.check_key(key)
        if not checks.has_values(n):
            raise UserError(
                "n must be known when the function is compiled, got a tracer: make it a static "
                "argument of jax.jit"
            )
        if not checks.is_integer(n) and not jax.export.is_symbolic_dim(n):
            raise UserError(f"n must be an integer, got {n!r}")
        if checks.is_integer(n) and n < 0:
            raise UserError(f"n must be at least 0, got {n}")
        known = checks.has_values(temperature)
        value: Any = np.asarray(temperature) if known else temperature  # `jit` would trace JAX's.
        number = any(jnp.issubdtype(value.dtype, kind) for kind in (jnp.integer, jnp.floating))
        if value.ndim or not number or (known and not value >= 0):
            raise UserError(f"temperature must be a number of at least 0, got {temperature!r}")
        if known and value != 1 and not self.likelihood.discrete:
            raise UserError(
                "temperature must be 1 for a continuous model, which has no logits, got "
                f"{temperature}"
            )
        condition = checks.check_condition(condition, n, self.config, self.image_shape)
        return condition, jnp.asarray(temperature, self.scales[0].network.param_dtype)

    def _refuse_plain(self, lacks: str) -> None:
        if self.config.plain:
            raise UserError(
                "a multi-scale model in the plain form (model.copy_coarse=false) gives images no "
                f"probability, so that it has {lacks}: use one in the exact form"
            )

    @property
    def _units(self) -> Units:
        return Units(self.offset, self.scale, self.scales[0].network.param_dtype)

    def _in_units(self, values: Array) -> Array:
        """Maps what the networks draw to images."""
        if self.likelihood.discrete:
            return values.astype(value_dtype(self.levels))
        return self._units.restored(values) if self.scale else values

    def _terms(self, number: int, params: PyTree, images: Array, condition: Array | None) -> Array:
        """Returns the terms of one scale, `[B, H, W, C]`; those of given pixels are 0."""
        scale = self.scales[number]
        outputs = self._outputs(number, params, images, condition)
        terms = self.likelihood.log_prob(outputs, scale.subsample(self._units.standardised(images)))
        terms = terms - self._units.log_scale
        return jnp.where(scale.given[None, ..., None], 0, terms)

    def _whole(self, number: int, terms: Array) -> Array:
        """Returns the terms of one scale at its pixels of the whole image; the others are 0."""
        stride = self.scales[number].stride
        whole = jnp.zeros((terms.shape[0], *self.image_shape), terms.dtype)
        return whole.at[:, ::stride, ::stride].set(terms)

    def _outputs(self, number: int, params: PyTree, images: Array, condition: Array | None) -> Any:
        """Returns the outputs of the network of one scale, `[B, H, W, C, Q]`."""
        scale, values = self.scales[number], self._units.standardised(images)
        coarse = self.scales[number - 1].subsample(values) if number else None
        return scale.apply(params, scale.subsample(values), scale.condition(condition), coarse)

    def _evaluated(
        self,
        function: Callable[[PyTree, Array, Array | None], Array],
        params: PyTree,
        images: ArrayLike,
        condition: ArrayLike | None,
    ) -> Array:
        """Calls a function of one result per image, on checked arguments."""
        rows = self.checked(images, condition)
        return in_parts(function, self.parts(rows[0].shape[0]), params, *rows)


class _Networks(nn.Module):
    """The networks of several scales, so that Flax gives each its own part of one key."""

    model: PixelRNN

    def setup(self) -> None:
        self.scale = [scale.network for scale in self.model.scales]

    def __call__(self, images: Array, condition: Array | None) -> None:
        coarse = None
        for scale, network in zip(self.model.scales, self.scale, strict=True):
            own = scale.subsample(images)
            network(own, scale.condition(condition), coarse)
            coarse = own
