"""Sampling: what an image depends on, and that frequencies are the model's probabilities."""

import functools

import jax
import numpy as np
import pytest
from random_models import (
    all_images,
    chi_square_is_plausible,
    frequencies,
    model_and_parameters,
    soft_model,
)

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import value_dtype
from pixel_rnn_jax.generation import sample

KEY = jax.random.key(7)
TINY = dict(layers=1, features=3, head_features=4, first_kernel=3)


@pytest.fixture(scope="module")
def model():
    return prnn.ImageModel(*model_and_parameters("pixel_cnn", (2, 2, 1), 3, **TINY))


@pytest.mark.parametrize(
    ("architecture", "image_shape", "levels"),
    [("pixel_cnn", (2, 2, 1), 3), ("row_lstm", (2, 3, 1), 2), ("diagonal_bilstm", (1, 2, 2), 3)],
)
def test_frequencies_are_the_probabilities(monkeypatch, architecture, image_shape, levels):
    monkeypatch.setattr(sample, "CPU_LANES", 12_500)
    model = soft_model(architecture, image_shape, levels, size=0.6, layers=1)
    images = all_images(image_shape, levels)
    probabilities = np.exp(model.log_prob(images).astype(float))
    counts = frequencies(model.sample(KEY, 100_000), levels)
    assert chi_square_is_plausible(counts, probabilities)
    uniform = np.full(len(counts), 1 / len(counts))
    assert not chi_square_is_plausible(counts, uniform)
    # At other temperatures each conditional is its power, normalised.
    terms = model.conditionals(images).astype(float)
    for temperature in (0.5, 2.0):
        powers = terms / temperature
        powers -= np.log(np.exp(powers).sum(-1, keepdims=True))
        chosen = np.take_along_axis(powers, images[..., None].astype(int), axis=-1)
        probabilities = np.exp(chosen.sum(axis=(1, 2, 3, 4)))
        counts = frequencies(model.sample(KEY, 100_000, temperature=temperature), levels)
        assert chi_square_is_plausible(counts, probabilities)


@pytest.mark.parametrize("levels", [2, 5])
def test_temperature_zero_takes_the_most_probable_value(levels):
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (2, 3, 2), levels, **TINY))
    images = model.sample(KEY, 2, temperature=0)
    for almost in (1e-45, 1e-37):
        np.testing.assert_array_equal(model.sample(KEY, 2, temperature=almost), images)
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(model.conditionals(images[:1]).argmax(-1), images[:1])


@pytest.mark.parametrize(
    "architecture",
    [
        "diagonal_bilstm",
        pytest.param("row_lstm", marks=pytest.mark.slow),
        pytest.param("pixel_cnn", marks=pytest.mark.slow),
    ],
)
def test_an_image_depends_on_its_number_alone(architecture):
    """Not on how many are drawn with it, and not on the number of devices that share the work."""
    model = prnn.ImageModel(*model_and_parameters(architecture, (2, 3, 2), 256, layers=1))
    for temperature in (1.0, 0.5):
        draw = functools.partial(model.sample, temperature=temperature, return_log_prob=True)
        many, many_log_probs = draw(KEY, 20)  # On three devices.
        few, few_log_probs = draw(KEY, 3)  # On one.
        np.testing.assert_array_equal(few, many[:3])
        np.testing.assert_array_equal(few_log_probs, many_log_probs[:3])
        np.testing.assert_allclose(many_log_probs, model.log_prob(many), rtol=1e-5)
        assert len(np.unique(many.reshape(20, -1), axis=0)) > 10
    assert (model.sample(jax.random.key(8), 3) != model.sample(KEY, 3)).any()


@pytest.mark.parametrize(
    ("levels", "dtype"), [(2, np.uint8), (256, np.uint8), (257, np.uint16), (70_000, np.int32)]
)
def test_dtype(model, levels, dtype):
    assert value_dtype(levels) == dtype
    if levels == 70_000:
        options = dict(layers=1, features=1, head_features=1)
        model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (1, 1, 1), levels, **options))
        assert model.sample(KEY, 2).dtype == dtype


def test_no_images(model):
    assert model.sample(KEY, 0).shape == (0, 2, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(n=-1), "n must be at least 0, got -1"),
        (dict(n=2.0), "n must be an integer, got 2.0"),
        (dict(n=1, temperature=-0.5), "temperature must be at least 0, got -0.5"),
        (dict(n=1, temperature=float("nan")), "temperature must be at least 0, got nan"),
        (dict(n=1, key=0), "key must be one of jax.random, .* got 0"),
    ],
)
def test_impossible_arguments_are_refused(model, arguments, message):
    with pytest.raises(prnn.UserError, match=message):
        model.sample(**dict(key=KEY) | arguments)
