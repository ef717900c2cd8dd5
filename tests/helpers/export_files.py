"""Parameters by the names that they have in an exported file."""

import jax
import numpy as np
from helpers.random_models import tiny_model as tiny_model


def arrays_of(model):
    leaves = jax.tree_util.tree_leaves_with_path(model.params)
    return {"/".join(part.key for part in path): np.asarray(leaf) for path, leaf in leaves}


def assert_same(model, other):
    assert model.pixel_rnn == other.pixel_rnn and model.class_names == other.class_names
    arrays, others = arrays_of(model), arrays_of(other)
    assert {k: v.dtype for k, v in arrays.items()} == {k: v.dtype for k, v in others.items()}
    jax.tree.map(np.testing.assert_array_equal, arrays, others)
