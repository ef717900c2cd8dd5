"""The chain of scales: the share of each network in the log-probability of an image."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import model_and_parameters, random_batch, whole_map_outputs

import pixel_rnn_jax as prnn
from pixel_rnn_jax.model.pixel_rnn import PixelRNN

SHAPE, LEVELS = (4, 8, 2), 3


def test_a_map_is_averaged_in_the_precision_of_the_network():
    """As the codec needs it: any order of the sum gives the same 64-bit logits, nearly."""
    options = dict(layers=1, features=4, scales=(1, 4), condition_map=1, dtype="float64")
    condition = np.random.default_rng(0).random((3, 4, 8, 1), np.float32)
    with jax.enable_x64(True):
        model = PixelRNN(prnn.ModelConfig("pixel_cnn", **options), (4, 8, 1), 2)
        mean = model.scales[0].condition(jnp.asarray(condition))
    expected = condition.astype(float).reshape(3, 1, 4, 2, 4, 1).mean(axis=(2, 4))
    np.testing.assert_allclose(mean, expected, rtol=1e-15)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(dict(scales=(1, 2, 4)), marks=pytest.mark.slow),
        dict(scales=(2, 4), copy_coarse=False),
    ],
)
def test_chain_is_what_its_networks_give_one_by_one(options):
    options |= dict(layers=1, num_classes=2)
    model, params = model_and_parameters("pixel_cnn", SHAPE, LEVELS, **options)
    images, classes = random_batch(model, 5)

    @jax.jit
    def measure(params):
        nats = model.nats_by_scale(params, images, classes)
        terms = model.log_prob(params, images, classes, per_value=True)
        conditionals = (
            None if model.config.redraws_coarse else model.conditionals(params, images, classes)
        )
        shares = model.nats_by_scale(params, images, classes, per_value=True)
        whole = model.log_prob(params, images, classes)
        outputs = whole_map_outputs(model, params, images, classes)
        return nats, terms, conditionals, shares, whole, outputs

    nats, terms, conditionals, shares, whole, outputs = jax.tree.map(np.asarray, measure(params))
    expected = np.zeros(images.shape)
    for number, scale in enumerate(model.scales):
        assert scale.copied.any() == (number > 0 and model.config.copy_coarse)
        log_probs = model.likelihood.log_prob(outputs[number], scale.subsample(images))
        log_probs = np.where(scale.copied[None, ..., None], 0, log_probs)
        np.testing.assert_allclose(nats[:, number], -log_probs.sum(axis=(1, 2, 3)), rtol=1e-4)
        scale.subsample(expected)[:] += log_probs  # A view.
    np.testing.assert_allclose(terms, expected, atol=1e-5)
    np.testing.assert_allclose(shares.sum(axis=1), -terms, atol=1e-5)
    np.testing.assert_allclose(shares.sum(axis=(2, 3, 4)), nats, rtol=1e-5)
    np.testing.assert_allclose(whole, -nats.sum(-1), rtol=1e-5)
    if conditionals is not None:
        np.testing.assert_allclose(np.exp(np.asarray(conditionals, float)).sum(-1), 1, atol=1e-5)
        picked = np.take_along_axis(conditionals, images[..., None], axis=-1)[..., 0]
        np.testing.assert_allclose(terms, picked, atol=1e-5)


def test_width_that_the_scales_do_not_fit_is_refused():
    with pytest.raises(prnn.UserError, match="model.scales"):
        PixelRNN(prnn.ModelConfig(scales=(2, 8)), (8, 6, 1), 2)
