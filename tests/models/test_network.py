"""The options of a model that change how it is computed, and what it refuses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import ARCHITECTURES

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.pixel_rnn import PixelRNN

IMAGE_SHAPE, LEVELS, BATCH = (4, 6, 3), 4, 6


def model_of(architecture, **options):
    defaults = {"layers": 1, "features": 5, "head_features": 7}
    return PixelRNN(ModelConfig(architecture, **defaults | options), IMAGE_SHAPE, LEVELS)


@functools.cache
def loss_and_gradient(model):
    """Those of one batch; all models of one structure have the same parameters."""
    images = np.random.default_rng(0).integers(LEVELS, size=(BATCH, *IMAGE_SHAPE))
    condition, config = None, model.config
    if config.num_classes:
        condition = np.arange(BATCH) % config.num_classes
    if config.condition_vector:
        condition = np.random.default_rng(1).normal(size=(BATCH, config.condition_vector))
    if config.condition_map:
        shape = BATCH, *IMAGE_SHAPE[:2], config.condition_map
        condition = np.random.default_rng(1).normal(size=shape)

    def loss(params):
        return model.nats_by_scale(params, images, condition).sum(-1).mean()

    return jax.jit(jax.value_and_grad(loss))(model.init(jax.random.key(1)))


def assert_close(one, other, tolerance=1e-4):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance), one, other
    )


@pytest.mark.parametrize(
    "architecture",
    ["row_lstm", *(pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES[::2])],
)
def test_rematerialisation_changes_no_value_and_keeps_less_for_the_backward_pass(architecture):
    plain, remat = model_of(architecture), model_of(architecture, remat=True)
    assert_close(loss_and_gradient(remat), loss_and_gradient(plain))

    def kept(remat):
        """The number of values that the forward pass leaves to the backward pass."""
        model = model_of(architecture, remat=remat, layers=2)
        images = jnp.zeros((BATCH, *IMAGE_SHAPE), jnp.uint8)

        def pull(key):
            return jax.vjp(lambda p: model.nats_by_scale(p, images), model.init(key))[1]

        leaves = jax.tree.leaves(jax.eval_shape(pull, jax.random.key(0)))
        return sum(leaf.size for leaf in leaves)

    assert kept(True) < 0.8 * kept(False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_is_close_with_parameters_and_loss_in_float32(architecture):
    nats, gradient = loss_and_gradient(model_of(architecture, dtype="bfloat16"))
    expected, _ = loss_and_gradient(model_of(architecture))
    # A gradient has the type of its parameter.
    assert {leaf.dtype for leaf in jax.tree.leaves((nats, gradient))} == {jnp.dtype("float32")}
    assert nats != expected  # It does compute in another precision.
    np.testing.assert_allclose(nats, expected, rtol=0.01)


@pytest.mark.parametrize("pack", [1, 2, 9])
def test_packing_changes_no_value(pack):
    """Nor does the default of a CPU, 4, which a batch of six has to reduce to 3."""
    packed = loss_and_gradient(model_of("diagonal_bilstm", images_per_lane=pack))
    assert_close(packed, loss_and_gradient(model_of("diagonal_bilstm")))


OPTIONS = [
    {},
    dict(residual=False, skip=False),
    dict(skip=False),
    dict(residual=False),
    dict(scales=(2, 4), num_classes=2),
    dict(input="categorical", condition_vector=3),
    dict(scales=(2, 4), condition_map=2),
]
QUICK = [(0, 1, 2, 3, 5), (0, 1, 4), (0, 1)]


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        pytest.param(architecture, options, marks=() if number in quick else pytest.mark.slow)
        for architecture, quick in zip(ARCHITECTURES, QUICK, strict=True)
        for number, options in enumerate(OPTIONS)
    ],
)
def test_every_parameter_has_a_gradient(architecture, options):
    _, gradient = loss_and_gradient(model_of(architecture, **options))
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
        assert jnp.isfinite(leaf).all() and jnp.any(leaf != 0), jax.tree_util.keystr(path)


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
    assert bits_per_dim(3072 * np.log(256), 3072) == pytest.approx(8)
