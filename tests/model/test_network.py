"""The options of a model that change how it is computed, and the arguments that it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import ARCHITECTURES, assert_trees_close, random_batch, random_like
from jax.flatten_util import ravel_pytree

from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system.errors import UserError

IMAGE_SHAPE, LEVELS, BATCH = (4, 4, 3), 4, 6


def model_of(name, **options):
    defaults = {"architecture": name, "layers": 1, "features": 5, "head_features": 7}
    return PixelRNN(ModelConfig(**defaults | options), IMAGE_SHAPE, LEVELS)


def loss_and_gradient(model):
    images, condition = random_batch(model, BATCH)

    def loss(params):
        return model.nats_by_scale(params, images, condition).sum(-1).mean()

    params = random_like(jax.eval_shape(model.init, jax.random.key(1)), seed=0)
    return jax.jit(jax.value_and_grad(loss))(params)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_parameters_of_a_new_model_have_the_usual_size(architecture):
    """Kernels have variance 1 / inputs; gates that forget keep 27 % to 95 % of their state."""
    config = ModelConfig(architecture, layers=1, features=16, head_features=16)
    params = jax.jit(PixelRNN(config, (4, 4, 1), LEVELS).init)(jax.random.key(0))
    params = jax.tree.map(np.asarray, params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        size = leaf.std() * np.prod(leaf.shape[:-1]) ** 0.5
        right = 0.8 < size < 1.2 if leaf.ndim > 1 else -0.5 <= leaf.min() <= leaf.max() <= 1.5
        assert right, jax.tree_util.keystr(path)


CONDITIONS = {
    "pixel_cnn": dict(input="categorical", condition_vector=3),
    "row_lstm": dict(scales=(2, 4), condition_map=2),
    "diagonal_bilstm": dict(num_classes=2),
}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_option_and_every_parameter_counts(architecture):
    """Each of two layers drops its one feature of the first pixel, or does not: four losses."""
    draws = jax.random.split(jax.random.key(0), 64)
    options = dict(layers=2, features=1, head_features=12, dropout=0.5, remat=True, residual=False)
    options |= CONDITIONS.get(architecture, {})

    def loss_of(**changes):
        model = PixelRNN(ModelConfig(architecture, **options | changes), (4, 4, 1), 2)
        images, condition = jax.tree.map(lambda x: x[:1].repeat(64, 0), random_batch(model, 1))

        def loss(params):
            nats = model.nats_by_scale(
                params, images, condition, dropout_keys=draws, per_value=True
            )
            return nats.sum(), nats[:, 0, 0, 0, 0]

        return loss, random_like(jax.eval_shape(model.init, jax.random.key(1)), seed=0)

    loss, params = loss_of()
    gradient_fn = jax.jit(jax.grad(loss, has_aux=True))
    gradient, of_first_pixel = jax.tree.map(np.asarray, gradient_fn(params))
    assert len(np.unique(np.round(of_first_pixel, 5))) == 4
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert np.isfinite(leaf).all() and leaf.any(), jax.tree_util.keystr(path)
    ends = "first", "head", "logits", "embed", "vector", "map", "upsample"
    silent = jax.tree_util.tree_map_with_path(
        lambda path, x: x if path[1].key.startswith(ends) else np.zeros_like(x), params
    )
    gradient, _ = gradient_fn(silent)
    assert not np.any(gradient["scale_0"]["first"]["kernel"])
    assert "remat" in str(jax.make_jaxpr(loss)(params))
    _, fewer = loss_of(skip=False)
    assert ravel_pytree(fewer)[0].size < ravel_pytree(params)[0].size


@pytest.mark.slow
def test_bfloat16_rounds_the_operands_of_products_alone():
    """Kernels and layers have tests of what each rounds; this is of the whole."""
    nats, gradient = loss_and_gradient(model_of("row_lstm", dtype="bfloat16", condition_vector=2))
    exact, _ = loss_and_gradient(model_of("row_lstm", condition_vector=2))
    # A gradient has the type of its parameter.
    assert {leaf.dtype for leaf in jax.tree.leaves((nats, gradient))} == {jnp.dtype("float32")}
    assert nats != exact
    np.testing.assert_allclose(nats, exact, rtol=5e-3)


def test_packing_changes_no_value():
    """The default of a CPU is 4, which a batch of six has to reduce to 3."""
    single = loss_and_gradient(model_of("diagonal_bilstm", images_per_lane=1))
    assert_trees_close(loss_and_gradient(model_of("diagonal_bilstm")), single, 1e-4, 1e-4)


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
