"""Pictures that training draws at each validation: samples, and completions of known images."""

import jax
import numpy as np

from pixel_rnn_jax import pictures
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.generation.complete import is_exact
from pixel_rnn_jax.image_model import ImageModel

IMAGES = 16
"""Images in a picture: few, so that they cost little."""
PARTICLES = 16
"""For completions whose known half does not come first in generation order."""


def draw_previews(model: ImageModel, seed: int, validation: Source) -> dict[str, np.ndarray]:
    """Draws samples, and validation images with a new lower half.

    The random numbers are the same at every call, so that pictures differ by what was learnt.
    """
    key, levels = jax.random.key(seed), model.levels
    batch = validation.batch(range(min(IMAGES, len(validation))))
    condition, count = batch.condition, len(batch.images)
    if classes := model.config.num_classes:
        condition, count = every_class(IMAGES, classes), IMAGES
    elif condition is None:
        count = IMAGES
    samples = model.sample(key, count, condition)
    drawn = {"samples": pictures.grid(*pictures.as_levels(samples, levels))}
    half = pictures.known_mask("top_half", model.image_shape)
    known = np.broadcast_to(half, batch.images.shape)
    particles = 1 if is_exact(model.pixel_rnn.scales, known) else PARTICLES
    found = model.complete(key, batch.images, known, batch.condition, particles=particles)
    drawn["completions"] = pictures.completions(batch.images, known, found.images, levels)
    return drawn


def every_class(n: int, classes: int) -> np.ndarray:
    """Returns `[n]` classes in increasing order, whose counts differ by one at most."""
    return np.arange(n) * classes // n
