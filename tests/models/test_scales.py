"""The chain of scales: what each network gives of an image, and where."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import model_and_parameters, whole_map_outputs

import pixel_rnn_jax as prnn
from pixel_rnn_jax.pixel_rnn import PixelRNN

SHAPE, LEVELS, CLASSES = (4, 8, 2), 3, np.array([0, 1, 1, 0, 1])
SCALES = dict(scales=(1, 2, 4), num_classes=2)


def test_a_map_is_averaged_in_the_precision_of_the_network():
    """As the codec needs it: any order of the sum gives the same 64-bit logits, nearly."""
    options = dict(layers=1, features=4, scales=(1, 4), condition_map=1, dtype="float64")
    condition = np.random.default_rng(0).random((3, 4, 8, 1), np.float32)
    with jax.enable_x64(True):
        model = PixelRNN(prnn.ModelConfig("pixel_cnn", **options), (4, 8, 1), 2)
        found = model.scales[0].condition(jnp.asarray(condition))
    expected = condition.astype(float).reshape(3, 1, 4, 2, 4, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(found, expected, rtol=1e-15)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("row_lstm", SCALES),
        ("pixel_cnn", SCALES | dict(copy_coarse=False)),
        ("diagonal_bilstm", dict(num_classes=2)),
    ],
)
def test_chain_is_what_its_networks_give_one_by_one(architecture, options):
    model, params = model_and_parameters(architecture, SHAPE, LEVELS, layers=1, **options)
    images = np.random.default_rng(0).integers(LEVELS, size=(5, *SHAPE))

    @jax.jit
    def measure(params):
        nats = model.nats_by_scale(params, images, CLASSES)
        terms = model.log_prob(params, images, CLASSES, per_value=True)
        conditionals = None if model.config.plain else model.conditionals(params, images, CLASSES)
        some = model.nats_by_scale(params, images, CLASSES, scales=[len(model.scales) - 1, 0])
        whole = model.log_prob(params, images, CLASSES)
        outputs = whole_map_outputs(model, params, images, CLASSES)
        return nats, terms, conditionals, some, whole, outputs

    nats, terms, conditionals, some, whole, outputs = jax.tree.map(np.asarray, measure(params))
    expected = np.zeros(images.shape)
    for number, scale in enumerate(model.scales):
        assert scale.given.any() == (number > 0 and model.config.copy_coarse)
        own = model.likelihood.log_prob(outputs[number], scale.subsample(images))
        own = np.where(scale.given[None, ..., None], 0, own)
        np.testing.assert_allclose(nats[:, number], -own.sum(axis=(1, 2, 3)), rtol=1e-4)
        scale.subsample(expected)[:] += own  # A view.
    np.testing.assert_allclose(terms, expected, atol=1e-5)
    for wrong in ([], [len(model.scales)], [-1]):
        with pytest.raises(prnn.UserError, match="scales must be some of"):
            model.nats_by_scale(params, images, CLASSES, scales=wrong)
    np.testing.assert_allclose(whole, -nats.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(some, nats[:, [-1, 0]], rtol=1e-5)
    if conditionals is not None:
        np.testing.assert_allclose(np.exp(np.asarray(conditionals, float)).sum(-1), 1, atol=1e-5)
        picked = np.take_along_axis(conditionals, images[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(terms, picked, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "heights", "message"),
    [
        ((8, 8, 1), (2, 4), "model.scales must end with the height of the images, 8, got .2, 4."),
        ((8, 6, 1), (2, 8), "images 6 wide cannot be made 4 times smaller"),
    ],
)
def test_scales_that_do_not_fit_the_images_are_refused(shape, heights, message):
    with pytest.raises(prnn.UserError, match=message):
        PixelRNN(prnn.ModelConfig(scales=heights), shape, 2)


def test_equal_models_are_one_static_argument():
    one, other = (PixelRNN(prnn.ModelConfig(), shape, 2) for shape in ((4, 4, 1), [4, 4, 1]))
    assert one == other and hash(one) == hash(other)
    assert one != PixelRNN(prnn.ModelConfig(features=8), (4, 4, 1), 2)
