"""Multi-Scale PixelRNN: a chain of models of ever larger images (section 3.6).

The image of a scale takes the top-left pixel of each block of the next one. A model of the smallest
image comes first; each of the others is conditioned on the image before it.

In the exact form the pixels that the smaller image gives are copied: they cost nothing and are
never drawn, and p(x) = p(x_s) * prod p(x_i | x_<i, x_s) over the others is a probability. In the
paper's plain form the larger image is drawn whole, so that it may contradict the smaller one, and
the product adds up to less than one over all images.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax import likelihoods
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.likelihoods import Likelihood
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

PyTree = Any


class Scale(NamedTuple):
    """One link of the chain.

    Attributes:
        network: Its model.
        name: Of its parameters among those of the chain; "" if they are all there is.
        stride: Its pixel (r, c) is the pixel (stride * r, stride * c) of the image.
        given: `[h, w]` booleans: the pixels that the scale before gives.
    """

    network: PixelRNN
    name: str
    stride: int
    given: np.ndarray

    def select(self, params: PyTree) -> PyTree:
        """Returns this scale's own parameters out of the whole model's."""
        return params[self.name] if self.name else params

    def subsample(self, images: Any) -> Any:
        """Takes what belongs to this scale out of `[B, H, W, ...]`, `[B, h, w, ...]`."""
        return images[:, :: self.stride, :: self.stride]

    def put(self, coarse: Array) -> Array:
        """Puts the image of the scale before where this one's pixels are given; zero elsewhere."""
        ratio = self.network.ratio
        image = jnp.zeros((len(coarse), *self.network.image_shape), coarse.dtype)
        return image.at[:, ::ratio, ::ratio].set(coarse)


class MultiScalePixelRNN(nn.Module):
    """A chain of PixelRNNs, one for each of `config.scales`.

    Attributes:
        config: of all scales.
        image_shape: (H, W, C) of the largest.
        levels: K.
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        height, width, _ = self.image_shape
        heights = self.config.scales
        if heights[-1] != height:
            raise UserError(
                f"model.scales must end with the height of the images, {height}, got {heights}"
            )
        if width % (height // heights[0]):
            raise UserError(
                f"model.scales: images {width} wide cannot be made {height // heights[0]} times "
                f"smaller as {heights} says; choose a larger first height"
            )

    @property
    def likelihood(self) -> Likelihood:
        """What the outputs of each scale mean."""
        return likelihoods.of(self.config, self.levels)

    def setup(self) -> None:
        """Declares the parameters (Linen calls it)."""
        self.scale = [scale.network for scale in scales(self)]

    def __call__(self, inputs: Array, labels: Array | None = None) -> tuple[Array, ...]:
        """Computes the outputs of every value of every scale.

        Args:
            inputs: `[B, H, W, C]` floats from `likelihood.inputs`.
            labels: `[B]` integers, with `config.classes`.

        Returns:
            For each scale, coarsest first, `[B, h, w, C, N]`.
        """
        outputs = []
        coarse = None
        for network in self.scale:
            stride = self.image_shape[0] // network.image_shape[0]
            own = inputs[:, ::stride, ::stride]
            outputs.append(network(own, labels, coarse))
            coarse = own
        return tuple(outputs)


Model = PixelRNN | MultiScalePixelRNN


def create(config: ModelConfig, image_shape: tuple[int, int, int], levels: int) -> Model:
    """Returns the model that a config describes."""
    kind = MultiScalePixelRNN if config.scales else PixelRNN
    return kind(config, image_shape, levels)


def scales(model: Model) -> list[Scale]:
    """Returns the scales of a model, coarsest first; one PixelRNN is a chain of one."""
    if isinstance(model, PixelRNN):
        return [Scale(model, "", 1, np.zeros(model.image_shape[:2], bool))]
    height, width, channels = model.image_shape
    chain = []
    for number, own_height in enumerate(model.config.scales):
        stride = height // own_height
        ratio = own_height // model.config.scales[number - 1] if number else 0
        network = PixelRNN(
            model.config.of_scale(number),
            (own_height, width // stride, channels),
            model.levels,
            ratio,
        )
        given = np.zeros(network.image_shape[:2], bool)
        if ratio and not model.config.plain:
            given[::ratio, ::ratio] = True
        chain.append(Scale(network, f"scale_{number}", stride, given))
    return chain
