"""Small models, and their parameters by the names that they have in an exported file."""

import jax
import numpy as np
from random_models import model_and_parameters

import pixel_rnn_jax as prnn

TINY = dict(layers=1, features=3, head_features=4, first_kernel=3)


def tiny_model(
    architecture="pixel_cnn", *, shape=(4, 4, 1), levels=3, seed=0, class_names=(), **options
):
    parts = model_and_parameters(architecture, shape, levels, seed=seed, **TINY | options)
    return prnn.ImageModel(*parts, class_names)


def arrays_of(model):
    leaves = jax.tree_util.tree_leaves_with_path(model.params)
    return {"/".join(part.key for part in path): np.asarray(leaf) for path, leaf in leaves}


def assert_same(model, other):
    assert model.pixel_rnn == other.pixel_rnn and model.class_names == other.class_names
    arrays, others = arrays_of(model), arrays_of(other)
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert array.dtype == others[name].dtype
        np.testing.assert_array_equal(array, others[name])
