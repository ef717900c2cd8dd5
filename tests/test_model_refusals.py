"""What an `ImageModel` refuses: labels that do not fit, and what only a probability can give."""

import jax
import numpy as np
import pytest
from random_models import model_and_parameters

import pixel_rnn_jax as prnn

KEY = jax.random.key(3)


def model_of(levels=2, **options):
    tiny = dict(layers=1, features=3, head_features=4, first_kernel=3)
    return prnn.ImageModel(*model_and_parameters("pixel_cnn", (4, 4, 1), levels, **tiny, **options))


def test_plain_form_refuses_what_needs_a_probability():
    model = model_of(scales=(2, 4), exact=False)
    images, log_probs = model.sample(KEY, 20, return_log_prob=True)
    np.testing.assert_allclose(model.log_prob(images), log_probs, rtol=1e-4)
    for refused in (model.conditionals, model.compress):
        with pytest.raises(prnn.UserError, match="plain form .model.exact=false. gives images no"):
            refused(images)


def test_density_refuses_what_needs_a_probability():
    model = model_of(output="continuous", levels=5)
    samples, log_probs = model.sample(KEY, 3, return_log_prob=True)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(model.log_prob(samples), log_probs, rtol=1e-4)
    for refused in (model.conditionals, model.compress):
        with pytest.raises(prnn.UserError, match="continuous model gives images no probability"):
            refused(samples)
    with pytest.raises(prnn.UserError, match="add noise with `dequantize`"):
        model.log_prob(np.zeros((1, 4, 4, 1), np.uint8))
    with pytest.raises(prnn.UserError, match="a continuous model completes no images"):
        model.complete(KEY, samples, np.ones((4, 4), bool))
    with pytest.raises(prnn.UserError, match="temperature must be 1 for a continuous model"):
        model.sample(KEY, 1, temperature=0.5)
    with pytest.raises(prnn.UserError, match="finite"):
        model.log_prob(samples * np.inf)


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (3, None, "this model has 3 classes: give labels"),
        (3, [0, 1], "labels must be 4 integers, one for each image, got shape .2."),
        (3, [0, 1, 2, 3], "labels must be from 0 to 2, got 0 to 3"),
        (3, [0.0, 1.0, 1.0, 1.0], "labels must be 4 integers"),
        (0, [0, 0, 0, 0], "labels are for a model with classes"),
    ],
)
def test_labels_that_do_not_fit_are_refused(classes, labels, message):
    model = model_of(classes=classes)
    images = np.zeros((4, 4, 4, 1), np.uint8)
    for call in (
        lambda: model.log_prob(images, labels),
        lambda: model.sample(KEY, 4, labels),
        lambda: model.complete(KEY, images, np.ones((4, 4), bool), labels),
        lambda: model.compress(images, labels),
    ):
        with pytest.raises(prnn.UserError, match=message):
            call()
