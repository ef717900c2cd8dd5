"""Small models, images and the parts of compressed files, for the tests of the codec."""

import re

import numpy as np
from random_models import model_and_parameters

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import framing

LANES = 4


def small_model(architecture="row_lstm", shape=(3, 4, 1), levels=5, seed=0, **options):
    tiny = {"layers": 1, "features": 3, "head_features": 4, "first_kernel": 3}
    return prnn.ImageModel(
        *model_and_parameters(architecture, shape, levels, seed=seed, **tiny | options)
    )


def random_images(model, count):
    random = np.random.default_rng(0)
    return random.integers(model.levels, size=(count, *model.image_shape)).astype(np.int32)


def header_length(data):
    fixed = len(framing.MAGIC) + 1 + framing.FORMAT.size
    return fixed + data[fixed - 1] + framing.CHECKSUM.size


def block_starts(data):
    return [match.start() for match in re.finditer(re.escape(framing.MARKER), data)]
