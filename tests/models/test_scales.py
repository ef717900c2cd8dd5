"""The chain of scales: what each network gives of an image, and where."""

import jax
import numpy as np
import pytest
from random_models import model_and_parameters, whole_map_outputs

import pixel_rnn_jax as prnn
from pixel_rnn_jax.models import PixelRNN

SHAPE, LEVELS, LABELS = (4, 8, 2), 3, np.array([0, 1, 1, 0, 1])
OPTIONS = dict(scales=(1, 2, 4), classes=2, layers=1)


def random_images():
    return np.random.default_rng(0).integers(LEVELS, size=(5, *SHAPE))


@pytest.mark.parametrize(("architecture", "exact"), [("row_lstm", True), ("pixel_cnn", False)])
def test_chain_is_what_its_networks_give_one_by_one(architecture, exact):
    model, params = model_and_parameters(architecture, SHAPE, LEVELS, exact=exact, **OPTIONS)
    images = random_images()

    @jax.jit
    def measure(params):
        nats = model.nats_by_scale(params, images, LABELS)
        terms = model.log_prob(params, images, LABELS, per_pixel=True)
        return nats, terms, whole_map_outputs(model, params, images, LABELS)

    nats, terms, outputs = measure(params)
    expected = np.zeros(images.shape)
    for number, scale in enumerate(model.scales):
        assert scale.given.any() == (exact and number > 0)
        own = model.likelihood.log_prob(outputs[number], scale.subsample(images))
        own = np.where(scale.given[None, ..., None], 0, own)
        np.testing.assert_allclose(nats[:, number], -own.sum(axis=(1, 2, 3)), rtol=1e-4)
        scale.subsample(expected)[:] += own  # A view.
    np.testing.assert_allclose(terms, expected, atol=1e-5)
    np.testing.assert_allclose(terms.sum(axis=(1, 2, 3)), -nats.sum(-1), rtol=1e-5)
    some = jax.jit(lambda params: model.nats_by_scale(params, images, LABELS, scales=[2, 0]))
    np.testing.assert_allclose(some(params), nats[:, [2, 0]], rtol=1e-5)


def test_terms_and_conditionals_lie_at_the_pixel_that_each_scale_gives():
    model = prnn.ImageModel(*model_and_parameters("row_lstm", SHAPE, LEVELS, **OPTIONS))
    images = random_images()
    terms = model.log_prob(images, LABELS, per_pixel=True)
    conditionals = model.conditionals(images, LABELS)
    np.testing.assert_allclose(np.exp(conditionals.astype(float)).sum(-1), 1, atol=1e-5)
    picked = np.take_along_axis(conditionals, images[..., None], -1)[..., 0]
    np.testing.assert_allclose(terms, picked, atol=1e-5)
    # A scale's image alone decides the terms of its pixels, all over the image.
    for scale in model.model.scales:
        others = np.zeros_like(images)
        scale.subsample(others)[:] = scale.subsample(images)
        found = model.log_prob(others, LABELS, per_pixel=True)
        np.testing.assert_allclose(scale.subsample(found), scale.subsample(terms), atol=1e-5)
    assert np.abs(model.log_prob(others * 0, LABELS, per_pixel=True) - terms).max() > 0.1


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
