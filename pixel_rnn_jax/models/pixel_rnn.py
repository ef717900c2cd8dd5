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
import numbers
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import likelihoods
from pixel_rnn_jax.models.likelihoods import Likelihood
from pixel_rnn_jax.models.network import CPU_PACK, Network

PyTree = Any
CPU_PIXELS = 1024
"""Pixels that a CPU computes at a time; about one image of MNIST or CIFAR-10."""


class Scale(NamedTuple):
    """One scale of the chain; H and W are those of its own images.

    Attributes:
        network: Its network.
        name: The key of its parameters among those of the chain.
        stride: Its pixel (r, c) is the pixel (stride * r, stride * c) of the whole image.
        given: `[H, W]` booleans: the pixels that the scale before gives.
    """

    network: Network
    name: str
    stride: int
    given: np.ndarray

    def apply(self, params: PyTree, *args: Any, method: str | None = None) -> Any:
        """Calls the network, or a method of it, given the parameters of the chain."""
        return self.network.apply({"params": params[self.name]}, *args, method=method)

    def subsample(self, images: Any) -> Any:
        """Returns this scale's part, `[B, H, W, ...]`, of arrays for whole images."""
        return images[:, :: self.stride, :: self.stride]

    def place(self, coarse: Array) -> Array:
        """Returns `[B, H, W, C]`: the pixels that the scale before gives, zeros elsewhere."""
        ratio = self.network.ratio
        image = jnp.zeros((len(coarse), *self.network.image_shape), coarse.dtype)
        return image.at[:, ::ratio, ::ratio].set(coarse)

    def condition(self, params: PyTree, labels: Array | None, coarse: Array | None) -> Any:
        """Returns what the body layers are conditioned on, `[B, H, W, h]`, or None for nothing.

        Args:
            params: Those of the chain.
            labels: `[B]` classes, or None.
            coarse: `[B, H / ratio, W / ratio, C]`, the values of the scale before, or None.
        """
        inputs = None if coarse is None else self.network.likelihood.inputs(coarse)
        found = self.apply(params, labels, inputs, method="condition")
        if found is None:
            return None
        return jnp.broadcast_to(found, (len(found), *self.network.image_shape[:2], found.shape[-1]))


@dataclass(frozen=True)
class PixelRNN:
    """An exact-likelihood model of images of one shape (sections 2 and 3).

    It holds no arrays: `init` returns the parameters, a dict with an entry for each scale, and the
    other methods are pure functions of them. Models are compared by value, as static arguments of
    `jax.jit` should be.

    Images are `[B, H, W, C]` integers from 0 to K - 1; with `output="continuous"` they are floats,
    and log-probabilities are log-densities per unit of a level. A model with classes takes
    `labels`, `[B]` integers.

    Attributes:
        config: The architecture, of all scales.
        image_shape: (H, W, C).
        levels: K, the number of values that a channel of a pixel can have, at least 2.

    Raises:
        UserError: The shape or the number of levels is impossible, features are too few for C, or
            the scales do not fit the shape.
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int

    def __post_init__(self) -> None:
        shape = tuple(self.image_shape)
        if len(shape) != 3 or min(shape) < 1:
            raise UserError(f"image_shape must be (H, W, C) with sizes of at least 1, got {shape}")
        if not all(isinstance(size, numbers.Integral) for size in (*shape, self.levels)):
            raise UserError(
                f"image_shape and levels must be integers, got {shape} and {self.levels}"
            )
        if self.levels < 2:
            raise UserError(f"levels must be at least 2, got {self.levels}")
        object.__setattr__(self, "image_shape", shape)
        height, width, _ = shape
        heights = self.config.scales or (height,)
        if heights[-1] != height:
            raise UserError(
                f"model.scales must end with the height of the images, {height}, got {heights}"
            )
        if width % (height // heights[0]):
            raise UserError(
                f"model.scales: images {width} wide cannot be made {height // heights[0]} times "
                f"smaller as {heights} says; choose a larger first height"
            )
        _ = self.scales  # The networks check the number of features.

    @functools.cached_property
    def scales(self) -> tuple[Scale, ...]:
        """The chain, coarsest first; the last scale is the whole image."""
        height, width, channels = self.image_shape
        heights = self.config.scales or (height,)
        chain = []
        for number, own_height in enumerate(heights):
            stride = height // own_height
            ratio = own_height // heights[number - 1] if number else 0
            shape = (own_height, width // stride, channels)
            network = Network(self.config.of_scale(number), shape, self.levels, ratio)
            given = np.zeros(shape[:2], bool)
            if ratio and self.config.exact:
                given[::ratio, ::ratio] = True
            chain.append(Scale(network, f"scale_{number}", stride, given))
        return tuple(chain)

    @property
    def likelihood(self) -> Likelihood:
        """What the outputs of the networks mean."""
        return likelihoods.of(self.config, self.levels)

    def parts(self, images: int) -> int:
        """Returns in how many equal parts to compute so many images, one part after another.

        On a CPU the maps of a part stay in its caches; elsewhere it is one part.
        """
        if jax.default_backend() != "cpu":
            return 1
        height, width, _ = self.image_shape
        most = max(CPU_PIXELS // (height * width), 1)
        if any(s.network.config.architecture != "pixel_cnn" for s in self.scales):
            most *= CPU_PACK  # Which share the steps of a scan.
        return next(n for n in range(1, images + 1) if images % n == 0 and images // n <= most)

    def init(self, key: Array) -> PyTree:
        """Returns random parameters, `{"scale_0": ..., ...}`."""
        images = jnp.zeros((1, *self.image_shape))
        labels = jnp.zeros(1, jnp.int32) if self.config.classes else None
        if len(self.scales) == 1:
            return {"scale_0": self.scales[0].network.init(key, images, labels)["params"]}
        return _Networks(self).init(key, images, labels)["params"]

    def log_prob(
        self,
        params: PyTree,
        images: Array,
        labels: Array | None = None,
        *,
        per_pixel: bool = False,
    ) -> Array:
        """Returns log p(image) in nats, `[B]`, or with `per_pixel` its terms, `[B, H, W, C]`.

        The term of a value is its log-probability given all values before it in generation order:
        by scale, row, column and channel. In the plain multi-scale form a pixel that belongs to
        several scales has the sum of their terms.
        """
        terms = []
        for number, scale in enumerate(self.scales):
            own = self._terms(number, params, images, labels)
            whole = jnp.zeros(images.shape, own.dtype)
            terms.append(whole.at[:, :: scale.stride, :: scale.stride].set(own))
        total = functools.reduce(jnp.add, terms)
        return total if per_pixel else total.sum(axis=(1, 2, 3))

    def nats_by_scale(
        self,
        params: PyTree,
        images: Array,
        labels: Array | None = None,
        *,
        scales: Sequence[int] | None = None,
    ) -> Array:
        """Returns the share of each scale in -log p(image), `[B, S]` in nats.

        `scales` are the numbers of those to compute; None stands for all.
        """
        wanted = range(len(self.scales)) if scales is None else scales
        terms = [self._terms(number, params, images, labels) for number in wanted]
        return jnp.stack([-own.sum(axis=(1, 2, 3)) for own in terms], axis=-1)

    def conditionals(self, params: PyTree, images: Array, labels: Array | None = None) -> Array:
        """Returns the log-probabilities of all levels of each value, `[B, H, W, C, K]`, in nats.

        A value has the distribution of the scale that gives it, given all values before it. Raises
        what `check_conditionals` does.
        """
        likelihood, given = self.check_conditionals(), (params, images, labels)
        *coarser, result = (
            likelihood.conditionals(jnp.asarray(scale.network.apply(*self._arguments(i, *given))))
            for i, scale in enumerate(self.scales)
        )
        for scale, own in reversed([*zip(self.scales, coarser, strict=False)]):
            result = result.at[:, :: scale.stride, :: scale.stride].set(own)
        return result

    def check_conditionals(self) -> likelihoods.Discrete:
        """Returns the likelihood of a model that gives images probabilities, value by value.

        Raises:
            UserError: The model is a density, or multi-scale in the plain form.
        """
        if not isinstance(self.likelihood, likelihoods.Discrete):
            raise UserError(
                "a continuous model gives images no probability, so that it has no conditionals "
                "and no codec: use one with discrete outputs"
            )
        if self.config.plain:
            raise UserError(
                "a multi-scale model in the plain form (model.exact=false) gives images no "
                "probability, so that it has no conditionals and no codec: use one in the exact "
                "form"
            )
        return self.likelihood

    def _terms(self, number: int, params: PyTree, images: Array, labels: Array | None) -> Array:
        """Returns the terms of one scale, `[B, H, W, C]`; those of given pixels are 0."""
        scale = self.scales[number]
        outputs: Any = scale.network.apply(*self._arguments(number, params, images, labels))
        terms = self.likelihood.log_prob(outputs, scale.subsample(jnp.asarray(images)))
        return jnp.where(scale.given[None, ..., None], 0, terms)

    def _arguments(
        self, number: int, params: PyTree, images: Array, labels: Array | None
    ) -> tuple[Any, ...]:
        """Returns what the network of one scale is applied to."""
        scale = self.scales[number]
        inputs = self.likelihood.inputs(jnp.asarray(images))
        coarse = self.scales[number - 1].subsample(inputs) if number else None
        return {"params": params[scale.name]}, scale.subsample(inputs), labels, coarse


class _Networks(nn.Module):
    """The networks of several scales, so that Flax gives each its own part of one key."""

    model: PixelRNN

    def setup(self) -> None:
        self.scale = [scale.network for scale in self.model.scales]

    def __call__(self, inputs: Array, labels: Array | None) -> None:
        coarse = None
        for scale, network in zip(self.model.scales, self.scale, strict=True):
            own = scale.subsample(inputs)
            network(own, labels, coarse)
            coarse = own
