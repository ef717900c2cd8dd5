"""Small models, images and the parts of compressed files, for the tests of the codec."""

import re

import numpy as np
from helpers.random_models import tiny_model

from pixel_rnn_jax.codec import coder, compression
from pixel_rnn_jax.data import Batch

GROUP = 4


def in_small_groups(set_attribute=setattr):
    """Makes groups of four images, each of them a block."""
    set_attribute(coder, "GROUP", GROUP)
    set_attribute(compression, "BLOCK_BYTES", 1)


def small_model(architecture="row_lstm", shape=(3, 4, 1), levels=5, **options):
    return tiny_model(architecture, shape, levels, **options)


def random_images(model, count, size=None):
    random, shape = (
        np.random.default_rng(0),
        (*(size or model.image_shape[:2]), model.image_shape[2]),
    )
    return random.integers(model.levels, size=(count, *shape)).astype(np.int32)


def written(model, images, condition=None, names=()):
    labels = [None] * len(images) if condition is None else condition
    rows = map(Batch, images, labels)
    arguments = model.pixel_rnn, model.params, rows, len(images), model.part, names
    return compression.compress(*arguments)


def read(model, data, **options):
    return compression.decompress(model.pixel_rnn, model.params, data, **options)


def block_starts(data):
    """Returns where each block begins, and the end."""
    return [match.start() for match in re.finditer(b"\xb1P[BE]", data)]
