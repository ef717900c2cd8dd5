"""Probabilities of all images of a tiny format add up to one."""

import itertools

import jax
import numpy as np
import pytest
from random_models import ARCHITECTURES, all_images, model_and_parameters

import pixel_rnn_jax as prnn


def log_probs(model, params, labels=(None,)):
    """The log-probabilities of all images, in float64, for each of some labels."""
    images = all_images(model.image_shape, model.levels)
    parts = np.split(images, max(1, len(images) // 4096))
    run = jax.jit(model.log_prob)

    def all_of(label):
        classes = None if label is None else np.full(len(parts[0]), label)
        return np.concatenate([np.asarray(run(params, part, classes), float) for part in parts])

    return [all_of(label) for label in labels]


def assert_normalised(nats):
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-5)
    assert nats.std() > 0.1  # Uniform probabilities would add up whatever the masks are.


FORMATS = [((2, 3, 1), 2), ((2, 2, 3), 2), ((2, 2, 1), 4), ((1, 3, 2), 3)]
SCALES = [
    ((4, 4, 1), 2, dict(scales=(2, 4))),
    ((4, 4, 1), 2, dict(scales=(1, 2, 4), output="logistic", mixtures=3)),
    ((2, 4, 2), 2, dict(scales=(1, 2), output="logistic", mixtures=3)),
    ((2, 2, 1), 4, dict(scales=(1, 2))),
]


@pytest.mark.parametrize(
    ("architecture", "image_shape", "levels", "options"),
    [(architecture, *case, {}) for case in FORMATS for architecture in ARCHITECTURES]
    + [
        pytest.param(architecture, *case, marks=() if i == j else pytest.mark.slow)
        for i, architecture in enumerate(ARCHITECTURES)
        for j, case in enumerate(SCALES)
    ],
)
def test_probabilities_of_all_images_add_up_to_one(architecture, image_shape, levels, options):
    options = dict(layers=1, features=4, first_kernel=3) | options
    (nats,) = log_probs(*model_and_parameters(architecture, image_shape, levels, **options))
    assert_normalised(nats)


@pytest.mark.parametrize(
    "architecture",
    ["row_lstm", *(pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES[::2])],
)
@pytest.mark.parametrize("options", [dict(scales=(1, 2)), dict()])
def test_probabilities_add_up_to_one_for_each_class(architecture, options):
    options = dict(classes=3, layers=1, features=4, first_kernel=3) | options
    by_class = log_probs(*model_and_parameters(architecture, (2, 2, 2), 2, **options), range(3))
    for nats in by_class:
        assert_normalised(nats)
    for one, other in itertools.combinations(by_class, 2):
        assert np.abs(one - other).max() > 0.05


def test_a_new_model_is_normalised():
    model = prnn.create(prnn.ModelConfig(layers=1, features=4), image_shape=(2, 3, 1), levels=2)
    nats = model.log_prob(all_images((2, 3, 1), 2)).astype(float)
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-5)
