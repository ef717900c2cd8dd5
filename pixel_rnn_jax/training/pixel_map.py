"""A picture of where the nats of images are."""

from typing import NamedTuple

import jax
import numpy as np

from pixel_rnn_jax import pictures
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.training.scores import Images

PIXEL_MAP_IMAGES = 16


class PixelMap(NamedTuple):
    """Images, each beside the negative log-likelihood of its pixels.

    Attributes:
        picture: A `pictures.pixel_map`, uint8.
        images: How many they are.
        black: The nats of the pixels that are black: 0, or less under a density.
        white: The nats of the pixels that are white.
    """

    picture: np.ndarray
    images: int
    black: float
    white: float


def draw_pixel_map(model: ImageModel, source: Images) -> PixelMap:
    """Draws the first images of a source, on the devices of this process alone.

    Raises:
        UserError: A value does not fit the model, or a file is damaged.
    """
    images, condition = source.batch(np.arange(min(PIXEL_MAP_IMAGES, len(source))))
    # Wherever the parameters lie.
    model = ImageModel(model.pixel_rnn, jax.device_get(model.params))
    nats = -np.asarray(model.log_prob(images, condition, per_value=True)).sum(-1)
    images, levels = pictures.as_levels(images, model.levels)
    picture = pictures.pixel_map(images, nats, levels)
    return PixelMap(picture, len(images), *pictures.black_and_white(nats))
