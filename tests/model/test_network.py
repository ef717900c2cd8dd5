"""The options of a model that change how it is computed, and the arguments that it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import assert_trees_close, random_batch, random_like

from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system.errors import UserError

IMAGE_SHAPE, LEVELS, BATCH = (4, 4, 3), 4, 6


def model_of(name, **options):
    defaults = {"architecture": name, "layers": 1, "features": 5, "head_features": 7}
    return PixelRNN(ModelConfig(**defaults | options), IMAGE_SHAPE, LEVELS)


@functools.cache
def loss_and_gradient(model):
    """Those of one batch; all models of one structure have the same parameters."""
    images, condition = random_batch(model, BATCH)

    def loss(params):
        return model.nats_by_scale(params, images, condition).sum(-1).mean()

    params = random_like(jax.eval_shape(model.init, jax.random.key(1)), seed=0)
    return jax.jit(jax.value_and_grad(loss))(params)


def test_rematerialisation_changes_no_value_and_keeps_less_for_the_backward_pass():
    plain, remat = (loss_and_gradient(model_of("row_lstm", remat=on)) for on in (False, True))
    assert_trees_close(remat, plain, 1e-4, 1e-4)

    def kept(remat):
        """The number of values that the forward pass leaves to the backward pass."""
        model = model_of("row_lstm", remat=remat, layers=2)
        images = jnp.zeros((BATCH, *IMAGE_SHAPE), jnp.uint8)

        def pull(key):
            return jax.vjp(lambda p: model.nats_by_scale(p, images), model.init(key))[1]

        leaves = jax.tree.leaves(jax.eval_shape(pull, jax.random.key(0)))
        return sum(leaf.size for leaf in leaves)

    assert kept(True) < 0.8 * kept(False)


@pytest.mark.slow
def test_bfloat16_rounds_the_operands_of_products_alone():
    """Kernels and layers have tests of what each rounds; this is of the whole."""
    nats, gradient = loss_and_gradient(model_of("row_lstm", dtype="bfloat16", condition_vector=2))
    exact, of_exact = loss_and_gradient(model_of("row_lstm", condition_vector=2))
    # A gradient has the type of its parameter.
    assert {leaf.dtype for leaf in jax.tree.leaves((nats, gradient))} == {jnp.dtype("float32")}
    assert nats != exact
    np.testing.assert_allclose(nats, exact, rtol=5e-3)
    for (path, leaf), expected in zip(
        jax.tree_util.tree_leaves_with_path(gradient), jax.tree.leaves(of_exact), strict=True
    ):
        # Where rounding moves a sum across zero, a ReLU passes another gradient.
        difference = jnp.linalg.norm(leaf - expected) / jnp.linalg.norm(expected)
        assert difference < 0.3, jax.tree_util.keystr(path)


def test_packing_changes_no_value():
    """The default of a CPU is 4, which a batch of six has to reduce to 3."""
    single = loss_and_gradient(model_of("diagonal_bilstm", images_per_lane=1))
    assert_trees_close(loss_and_gradient(model_of("diagonal_bilstm")), single, 1e-4, 1e-4)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("pixel_cnn", dict(input="categorical", condition_vector=3)),
        ("row_lstm", dict(scales=(2, 4), condition_map=2, residual=False)),
        ("diagonal_bilstm", dict(num_classes=2, skip=False)),
    ],
)
def test_every_parameter_has_a_gradient(architecture, options):
    _, gradient = loss_and_gradient(model_of(architecture, **options))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.isfinite(leaf).all() and jnp.any(leaf != 0), jax.tree_util.keystr(path)


DENSITY = dict(output="logistic_mixture")


@pytest.mark.parametrize(
    ("field", "value", "options"),
    [
        ("features", 2, {}),
        ("head_features", 2, {}),
        ("dtype", "float64", {}),
        ("scales", (1, 2), {}),
        ("architecture", "lstm", {}),
        ("output", "sigmoid", {}),
        ("input", "categorical", DENSITY),
        ("scales", (2, 4), DENSITY),
    ],
)
def test_config_that_does_not_fit_is_refused(field, value, options):
    with pytest.raises(UserError, match=f"model.{field}"):
        model_of("pixel_cnn", **options | {field: value})
