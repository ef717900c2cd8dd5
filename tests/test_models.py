"""The options of a PixelRNN that change how it is computed, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixel_rnn_jax import joint, likelihoods
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.models import PixelRNN

ARCHITECTURES = ["pixel_cnn", "row_lstm", "diagonal_bilstm"]
IMAGE_SHAPE, LEVELS = (5, 6, 3), 4


def model_of(architecture, **options):
    config = ModelConfig(architecture, **{"layers": 2, "features": 5, "head_features": 7} | options)
    return PixelRNN(config, IMAGE_SHAPE, LEVELS)


def loss_and_gradient(model, batch=4):
    images = np.random.default_rng(0).integers(LEVELS, size=(batch, *IMAGE_SHAPE))
    params = joint.init_parameters(model_of(model.config.architecture), jax.random.key(1))
    nats = joint.nats_by_scale(model)
    return jax.jit(jax.value_and_grad(lambda p: nats(p, Batch(images)).mean()))(params)


def assert_close(one, other, tolerance):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), one, other
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rematerialisation_changes_no_value_and_keeps_less_for_the_backward_pass(architecture):
    plain, remat = model_of(architecture), model_of(architecture, remat=True)
    assert_close(loss_and_gradient(remat), loss_and_gradient(plain), 1e-4)

    def kept(model):
        """The number of values that the forward pass leaves to the backward pass."""
        nats = joint.nats_by_scale(model)
        images = jnp.zeros((4, *IMAGE_SHAPE), jnp.uint8)
        params = joint.init_parameters(model, jax.random.key(0))
        pull = jax.eval_shape(lambda p: jax.vjp(lambda p: nats(p, Batch(images)), p)[1], params)
        return sum(leaf.size for leaf in jax.tree.leaves(pull))

    assert kept(remat) < 0.8 * kept(plain)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_is_close_with_parameters_and_loss_in_float32(architecture):
    model = model_of(architecture, dtype="bfloat16")
    params = joint.init_parameters(model, jax.random.key(1))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    nats, gradient = loss_and_gradient(model)
    expected, _ = loss_and_gradient(model_of(architecture))
    assert nats.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {jnp.dtype("float32")}
    assert nats != expected  # It does compute in another precision.
    np.testing.assert_allclose(nats, expected, rtol=0.01)


@pytest.mark.parametrize("pack", [2, 3, 4, 9])
def test_packing_changes_no_value(pack):
    expected = loss_and_gradient(model_of("diagonal_bilstm", pack=1))
    assert_close(loss_and_gradient(model_of("diagonal_bilstm", pack=pack)), expected, 1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("residual", [True, False])
@pytest.mark.parametrize("skip", [True, False])
def test_every_parameter_has_a_gradient(architecture, residual, skip):
    model = model_of(architecture, residual=residual, skip=skip)
    params = joint.init_parameters(model, jax.random.key(1))
    images = np.random.default_rng(0).integers(LEVELS, size=(4, *IMAGE_SHAPE))
    nats = joint.nats_by_scale(model)
    gradient = jax.jit(jax.grad(lambda p: nats(p, Batch(images)).mean()))(params)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.any(leaf != 0), jax.tree_util.keystr(path)


@pytest.mark.parametrize("field", ["features", "head_features"])
def test_fewer_features_than_channels_are_refused(field):
    with pytest.raises(UserError, match=f"model.{field} is 2, but images of 3 channels"):
        model_of("row_lstm", **{field: 2})


def test_float64_is_refused_where_jax_would_make_it_float32():
    with pytest.raises(UserError, match="float64.*needs jax_enable_x64: set JAX_ENABLE_X64=1"):
        model_of("pixel_cnn", dtype="float64")
    with jax.enable_x64(True):
        model_of("pixel_cnn", dtype="float64")


def test_bits_per_dim_of_the_uniform_distribution():
    assert likelihoods.bits_per_dim(3072 * np.log(256), 3072) == pytest.approx(8)
