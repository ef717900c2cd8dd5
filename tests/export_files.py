"""Small models for tests of exported files, and files that the package itself does not write."""

import dataclasses
import json

import jax
import numpy as np
import safetensors.numpy
from random_models import model_and_parameters

import pixel_rnn_jax as prnn
from pixel_rnn_jax.runs import export
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.names import by_name

TINY = dict(layers=1, features=3, head_features=4, first_kernel=3)


def tiny_model(architecture="pixel_cnn", *, shape=(4, 4, 1), levels=3, class_names=(), **options):
    found = model_and_parameters(architecture, shape, levels, **TINY | options)
    return prnn.ImageModel(*found, class_names)


def bits(model):
    leaves = jax.tree_util.tree_leaves_with_path(model.params)
    return {str(key): (leaf.dtype, leaf.shape, leaf.tobytes()) for key, leaf in leaves}


def assert_same(one, other):
    assert one.pixel_rnn == other.pixel_rnn and one.class_names == other.class_names
    assert bits(one) == bits(other)


def arrays_of(model):
    """Returns the parameters by the names that they have in a file."""
    return {name: np.asarray(leaf) for name, leaf in by_name(model.params).items()}


def write_by_hand(path, model, arrays, **changed):
    """Writes a file with the package safetensors, with changes of the metadata; has a digest."""
    pixel_rnn = model.pixel_rnn
    images = ImageFormat(
        *(pixel_rnn.image_shape, pixel_rnn.levels, pixel_rnn.offset, pixel_rnn.scale),
        model.class_names,
    )
    metadata = {
        "format": "pixel-rnn-jax",
        "format_version": "1",
        "config": json.dumps(dataclasses.asdict(pixel_rnn.config)),
        "images": images.to_json(),
    } | changed
    digest = export.digest(metadata["config"], metadata["images"], arrays)
    path.write_bytes(safetensors.numpy.save(arrays, {"digest": digest} | metadata))


def config_with(model, **changed):
    return json.dumps(dataclasses.asdict(model.config) | changed)
