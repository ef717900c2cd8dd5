"""Pictures that training draws at each validation: samples, and completions of known images."""

from typing import Any

import jax
import numpy as np

from pixel_rnn_jax import pictures
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.generation.complete import complete, is_exact
from pixel_rnn_jax.generation.sample import as_levels, every_class, sample
from pixel_rnn_jax.models import PixelRNN

PyTree = Any

IMAGES = 16
"""Images in a picture: few, so that they cost little."""
PARTICLES = 16
"""For completions whose known half does not come first in generation order."""


def draw_previews(
    model: PixelRNN, params: PyTree, seed: int, validation: Source
) -> dict[str, np.ndarray]:
    """Draws samples, and but for a density validation images with a new lower half.

    The random numbers are the same at every call, so that pictures differ by what was learnt.
    """
    key = jax.random.key(seed)
    labels = every_class(IMAGES, model.config.classes)
    samples, _ = sample(model, params, key, IMAGES, labels=labels)
    drawn = {"samples": pictures.grid(as_levels(model, samples), model.levels)}
    if model.likelihood.discrete:
        batch = validation.batch(range(min(IMAGES, len(validation))))
        half = pictures.known_mask("top_half", model.image_shape)
        known = np.broadcast_to(half, batch.images.shape)
        particles = 1 if is_exact(model, known) else PARTICLES
        found = complete(model, params, key, batch, known, particles=particles)
        drawn["completions"] = pictures.completions(batch.images, known, found.images, model.levels)
    return drawn
