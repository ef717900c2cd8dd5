"""Probabilities of all images of a tiny format add up to one, through the public interface."""

import itertools

import jax
import numpy as np
import pytest

import pixel_rnn_jax as prnn

ARCHITECTURES = ("pixel_cnn", "row_lstm", "diagonal_bilstm")
FORMATS = [((2, 3, 1), 2), ((2, 2, 3), 2), ((2, 2, 1), 4), ((1, 3, 2), 3), ((3, 1, 1), 5)]


def random_model(architecture, image_shape, levels, seed=0):
    """A model far from the uniform distribution: every parameter drawn at random."""
    config = prnn.ModelConfig(architecture=architecture, layers=2, features=4, head_features=6)
    model = prnn.create(config, image_shape=image_shape, levels=levels, seed=seed)
    random = np.random.default_rng(seed)
    model.params = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(leaf.dtype), model.params
    )
    return model


def all_images(image_shape, levels):
    images = list(itertools.product(range(levels), repeat=int(np.prod(image_shape))))
    return np.array(images, np.uint8).reshape(-1, *image_shape)


@pytest.mark.parametrize(("image_shape", "levels"), FORMATS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_of_all_images_add_up_to_one(architecture, image_shape, levels):
    model = random_model(architecture, image_shape, levels)
    nats = np.asarray(model.log_prob(all_images(image_shape, levels)), np.float64)
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-5)
    # Not the trivial model, whose images are all equally likely.
    assert np.std(nats) > 0.1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_of_a_new_model_add_up_to_one(architecture):
    config = prnn.ModelConfig(architecture=architecture, layers=2, features=4)
    model = prnn.create(config, image_shape=(2, 3, 1), levels=2)
    nats = np.asarray(model.log_prob(all_images((2, 3, 1), 2)), np.float64)
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(("image_shape", "levels"), [((2, 3, 1), 2), ((3, 2, 3), 5)])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_conditionals_are_normalised_and_log_prob_picks_from_them(
    architecture, image_shape, levels
):
    model = random_model(architecture, image_shape, levels)
    images = np.random.default_rng(1).integers(levels, size=(7, *image_shape))
    conditionals = np.asarray(model.conditionals(images), np.float64)
    assert conditionals.shape == (7, *image_shape, levels)
    np.testing.assert_allclose(np.exp(conditionals).sum(-1), 1, atol=1e-5)

    per_pixel = np.asarray(model.log_prob(images, per_pixel=True))
    picked = np.take_along_axis(conditionals, images[..., None], axis=-1)[..., 0]
    np.testing.assert_allclose(per_pixel, picked, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.log_prob(images), per_pixel.sum((1, 2, 3)), rtol=1e-5)
