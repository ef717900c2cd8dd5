"""Probabilities of all images of a tiny format add up to one, through the public interface."""

import functools
import itertools

import numpy as np
import pytest
from test_masks import ARCHITECTURES, random_parameters

import pixel_rnn_jax as prnn
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

FORMATS = [((2, 3, 1), 2), ((2, 2, 3), 2), ((2, 2, 1), 4), ((1, 3, 2), 3)]


@functools.cache  # So that no function is compiled twice.
def random_model(architecture, image_shape, levels):
    """A model with every parameter drawn at random, far from the uniform distribution."""
    config = prnn.ModelConfig(architecture=architecture, layers=1, features=4, head_features=6)
    module = PixelRNN(config, image_shape, levels)
    return prnn.ImageModel(module, random_parameters(module, image_shape, seed=0))


def all_images(image_shape, levels):
    images = list(itertools.product(range(levels), repeat=int(np.prod(image_shape))))
    return np.array(images, np.uint8).reshape(-1, *image_shape)


@pytest.mark.parametrize(("image_shape", "levels"), FORMATS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_of_all_images_add_up_to_one(architecture, image_shape, levels):
    nats = random_model(architecture, image_shape, levels).log_prob(all_images(image_shape, levels))
    assert np.exp(nats.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)
    assert np.std(nats) > 0.1  # Uniform probabilities would add up whatever the masks are.


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_of_a_new_model_add_up_to_one(architecture):
    config = prnn.ModelConfig(architecture=architecture, layers=1, features=4)
    nats = prnn.create(config, image_shape=(2, 3, 1), levels=2).log_prob(all_images((2, 3, 1), 2))
    assert np.exp(nats.astype(np.float64)).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("image_shape", "levels"), [((2, 3, 1), 2), ((1, 3, 2), 3)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_conditionals_are_normalised_and_hold_what_log_prob_returns(
    architecture, image_shape, levels
):
    model, images = random_model(architecture, image_shape, levels), all_images(image_shape, levels)
    conditionals = model.conditionals(images)
    assert conditionals.shape == (*images.shape, levels)
    np.testing.assert_allclose(np.exp(conditionals.astype(np.float64)).sum(-1), 1, atol=1e-5)

    per_pixel = model.log_prob(images, per_pixel=True)
    picked = np.take_along_axis(conditionals, images[..., None].astype(int), axis=-1)[..., 0]
    np.testing.assert_allclose(per_pixel, picked, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.log_prob(images), per_pixel.sum((1, 2, 3)), rtol=1e-5)
