"""Probabilities of all images of a tiny format add up to one."""

import itertools

import jax
import numpy as np
import pytest
from helpers.random_models import (
    ARCHITECTURES,
    all_images,
    model_and_parameters,
    with_large_conditions,
)


def log_probs(model, params, conditions=(None,)):
    """The log-probabilities of all images, in float64, for each of some conditions."""
    images = all_images(model.image_shape, model.levels)
    parts = np.split(images, max(1, len(images) // 4096))
    run = jax.jit(model.log_prob)

    def all_of(condition):
        if condition is not None:
            condition = np.broadcast_to(condition, (len(parts[0]), *np.shape(condition)))
        return np.concatenate([np.asarray(run(params, part, condition), float) for part in parts])

    return [all_of(condition) for condition in conditions]


def assert_normalised(nats):
    assert np.exp(nats).sum() == pytest.approx(1, abs=1e-5)
    assert nats.std() > 0.1  # Uniform probabilities would add up whatever the masks are.


DISCRETIZED = dict(output="discretized_logistic_mixture", mixtures=3)
COUPLED = dict(output="coupled_logistic_mixture", mixtures=3)
CASES = [
    *((architecture, (2, 2, 3), 2, {}) for architecture in ARCHITECTURES),
    ("pixel_cnn", (1, 3, 2), 3, dict(input="categorical")),
    ("pixel_cnn", (2, 2, 1), 4, dict(scales=(1, 2)) | DISCRETIZED),
    ("gated_pixel_cnn", (2, 2, 1), 4, dict(scales=(1, 2))),
    ("row_lstm", (1, 2, 3), 3, COUPLED),
    pytest.param("diagonal_bilstm", (4, 4, 1), 2, dict(scales=(1, 2, 4)), marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("architecture", "image_shape", "levels", "options"), CASES)
def test_probabilities_of_all_images_add_up_to_one(architecture, image_shape, levels, options):
    options = dict(layers=1, features=4, first_kernel=3) | options
    (nats,) = log_probs(*model_and_parameters(architecture, image_shape, levels, **options))
    assert_normalised(nats)


VECTORS = 20 * np.random.default_rng(0).normal(size=(3, 2))
MAPS = 20 * np.random.default_rng(1).normal(size=(3, 2, 2, 2))


@pytest.mark.parametrize(
    ("architecture", "options", "conditions"),
    [
        ("pixel_cnn", dict(condition_vector=2), VECTORS),
        ("row_lstm", dict(scales=(1, 2), num_classes=3), range(3)),
        ("diagonal_bilstm", dict(scales=(1, 2), condition_map=2), MAPS),
    ],
)
def test_probabilities_add_up_to_one_for_each_condition(architecture, options, conditions):
    options = dict(layers=1, features=4, first_kernel=3) | options
    model, params = model_and_parameters(architecture, (2, 2, 2), 2, **options)
    by_condition = log_probs(model, with_large_conditions(params), conditions)
    for nats in by_condition:
        assert_normalised(nats)
    for one, other in itertools.combinations(by_condition, 2):
        assert np.abs(one - other).max() > 0.05
