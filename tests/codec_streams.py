"""Small models, images and the parts of compressed files, for the tests of the codec."""

import io
import re

import numpy as np
from random_models import model_and_parameters

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import archive, coder, framing

GROUP = 4


def in_small_groups(set_attribute=setattr):
    """Makes groups of four images, each of them a block."""
    set_attribute(coder, "GROUP", GROUP)
    set_attribute(archive, "BLOCK_BYTES", 1)


def small_model(architecture="row_lstm", shape=(3, 4, 1), levels=5, seed=0, **options):
    tiny = {"layers": 1, "features": 3, "head_features": 4, "first_kernel": 3}
    return prnn.ImageModel(
        *model_and_parameters(architecture, shape, levels, seed=seed, **tiny | options)
    )


def random_images(model, count):
    random = np.random.default_rng(0)
    return random.integers(model.levels, size=(count, *model.image_shape)).astype(np.int32)


def header_length(data):
    return len(framing.read(io.BytesIO(data))[0].pack())


def block_starts(data):
    """Returns where each block begins, and the end."""
    return [match.start() for match in re.finditer(b"\xb1P[BE]", data)]
