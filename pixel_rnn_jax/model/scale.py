"""One scale of a chain, and the chain that a config describes (section 3.6)."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pixel_rnn_jax.model import layers
from pixel_rnn_jax.model.checks import no_condition
from pixel_rnn_jax.model.config import ModelConfig, check
from pixel_rnn_jax.model.network import Network
from pixel_rnn_jax.system.errors import UserError

PyTree = Any


class Scale(NamedTuple):
    """One scale of the chain, with its own H and W."""

    network: Network
    name: str  # The key of its parameters.
    stride: int  # Its pixel (r, c) is the pixel (stride * r, stride * c) of the whole image.
    copied: np.ndarray  # [H, W] booleans: the pixels copied from the smaller scale.

    def bind(self, params: PyTree) -> Network:
        """Returns the network with its part of the parameters; call its methods.

        Where a transformation of JAX traces a function, bind inside of it.
        """
        own = params.get(self.name, ()) if isinstance(params, Mapping) else ()
        # Flax would leave out layers of which there are too many.
        for name in sorted(_names(self.network) ^ set(own)):
            raise UserError(f"params do not fit: {self.name!r} has {name!r}, or lacks it")
        return self.network.bind({"params": params[self.name]})

    def subsample(self, images: Any) -> Any:
        """Returns this scale's part, `[B, H, W, ...]`, of arrays for whole images."""
        return images[:, :: self.stride, :: self.stride]

    def scatter(self, terms: Array, image_shape: tuple[int, int, int]) -> Array:
        """Returns terms of this scale's values at their places in the whole image, 0 elsewhere."""
        if self.stride == 1:
            return terms
        whole = jnp.zeros((terms.shape[0], *image_shape), terms.dtype)
        return whole.at[:, :: self.stride, :: self.stride].set(terms)

    def condition(self, condition: Array | None) -> Array | None:
        """Returns the condition of this scale: a map is averaged over the block of each pixel."""
        if condition is None or self.network.config.condition.kind != "map" or self.stride == 1:
            return condition
        (height, width, _), stride = self.network.image_shape, self.stride
        blocks = condition.reshape(-1, height, stride, width, stride, condition.shape[-1])
        # In the precision of the network, by which the codec has the same sum on any machine.
        return blocks.astype(self.network.param_dtype).mean(axis=(2, 4))

    def inputs(
        self, values: Array, condition: Array | None
    ) -> tuple[Array, Array | None, Array | None]:
        """Returns this scale's arguments of the network: values, condition and smaller image."""
        stride = self.stride * self.network.ratio
        coarse = values[:, ::stride, ::stride] if stride else None
        return self.subsample(values), self.condition(condition), coarse

    def embed_condition(self, params: PyTree, condition: Array | None, coarse: Array | None) -> Any:
        """Returns the condition of the body, `[B, H, W, h]`, or None without one."""
        features = self.bind(params).embed_condition(self.condition(condition), coarse)
        if features is None:
            return None
        shape = features.shape[0], *self.network.image_shape[:2], features.shape[-1]
        return jnp.broadcast_to(features, shape)


@functools.lru_cache(maxsize=64)
def _names(network: Network) -> frozenset[str]:
    """Returns the names of a network's modules."""
    height, width, channels = network.image_shape
    image = jnp.zeros((1, height, width, channels), network.param_dtype)
    condition = no_condition(network.config, network.image_shape, image.dtype)
    coarse = image[:, :: network.ratio, :: network.ratio] if network.ratio else None
    shapes = jax.eval_shape(network.init, jax.random.key(0), image, condition, coarse)
    return frozenset(shapes["params"])


def chain(config: ModelConfig, image_shape: tuple[int, int, int], levels: int) -> tuple[Scale, ...]:
    """Returns the scales of a model, the coarsest first; the last one is the whole image."""
    height, width, channels = image_shape
    heights = config.scales or (height,)
    fits = heights[-1] == height and not width % (height // heights[0])
    rule = f"end with the height of the images, {height}x{width}, and divide the width as well"
    check(config, "model.scales", rule, fits)
    scales = []
    for number, scale_height in enumerate(heights):
        stride = height // scale_height
        ratio = scale_height // heights[number - 1] if number else 0
        shape = (scale_height, width // stride, channels)
        network = Network(config.scale_config(number), shape, levels, ratio, parent=None)
        copied = np.zeros(shape[:2], bool)
        if ratio and config.copy_coarse:
            copied[::ratio, ::ratio] = True
        scales.append(Scale(network, f"scale_{number}", stride, copied))
    layers.check_fields(config, [layers.BODIES[name] for name in config.architectures])
    return tuple(scales)
