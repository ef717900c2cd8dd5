"""Sampling: every value against a full pass, the frequencies, and what an image depends on."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import (
    all_images,
    chi_square_is_plausible,
    frequencies,
    model_and_parameters,
    soft_model,
    tiny_model,
    whole_map_outputs,
)

from pixel_rnn_jax.model.generation import sample
from pixel_rnn_jax.system import tuning

KEY = jax.random.key(7)
SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        pytest.param("row_lstm", dict(scales=(1, 2), num_classes=2), marks=SLOW),
        ("pixel_cnn", dict(input="categorical", condition_map=2)),
        pytest.param("pixel_cnn", dict(output="gaussian_mixture", mixtures=2), marks=SLOW),
        pytest.param("row_lstm", dict(output="logistic_mixture", mixtures=2), marks=SLOW),
    ],
)
def test_values_and_terms_are_those_of_one_full_pass_a_value(x64, architecture, options):
    """Where some values are known, which are completed; and where none is, at a temperature."""
    shape, count, options = (2, 4, 2), 5, dict(layers=1) | options
    levels = 0 if options.get("output") == "gaussian_mixture" else 3
    model, params = model_and_parameters(architecture, shape, levels, dtype="float64", **options)
    random, config = np.random.default_rng(0), model.config
    condition = np.array([0, 1, 1, 0, 1]) if config.num_classes else None
    if config.condition_map:
        condition = random.normal(size=(count, 2, 4, config.condition_map))
    known = random.random((count, *shape)) < 0.2
    values = random.integers(3, size=known.shape)
    values = np.where(
        known, values if model.likelihood.discrete else values + random.random(known.shape), 0
    )
    outputs = jax.jit(lambda params, images: whole_map_outputs(model, params, images, condition))
    uniforms = jax.jit(lambda: sample.value_uniforms(model.scales, KEY, jnp.arange(count)))()

    @jax.jit
    def one_value(head, uniform, value, known, temperature):
        value = jnp.where(known, value, model.likelihood.draw(head, uniform, temperature))
        return value, model.likelihood.log_prob_of_draw(head, value, temperature)

    def one_pass_a_value(known, temperature):
        images, terms = np.where(known, values, 0), np.zeros(known.shape)
        for number, scale in enumerate(model.scales):
            # Views: a drawn value lands in the whole image.
            image, mask, log_probs = map(scale.subsample, (images, known, terms))
            for r, c, channel in np.ndindex(scale.network.image_shape):
                if not scale.copied[r, c]:
                    here = (slice(None), r, c, channel)
                    head = np.asarray(outputs(params, images)[number])[here]
                    given = np.asarray(uniforms[number])[here], image[here], mask[here]
                    image[here], log_probs[here] = one_value(head, *given, temperature)
        return images, terms

    one = jnp.ones(())
    expected, terms = one_pass_a_value(known, one)
    run = jax.jit(lambda params: model.complete(params, KEY, values, known, condition))
    done = run(params)
    np.testing.assert_allclose(done.images, expected, rtol=0 if model.likelihood.discrete else 1e-9)
    total = np.where(known, terms, 0).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(done.log_evidence, total, atol=1e-9)
    assert len(np.unique(expected.reshape(count, -1), axis=0)) > 2

    temperature = 0.7 if model.likelihood.discrete else 1.0
    expected, terms = one_pass_a_value(known & False, temperature * one)
    draw = functools.partial(model.sample_and_log_prob, n=count, temperature=temperature)
    images, log_probs = jax.jit(lambda params: draw(params, KEY, condition=condition))(params)
    np.testing.assert_allclose(images, expected, rtol=0 if model.likelihood.discrete else 1e-9)
    np.testing.assert_allclose(log_probs, terms.sum(axis=(1, 2, 3)), atol=1e-9)


@pytest.mark.parametrize(("levels", "unlikely"), [(2, 0), (2, 1), (5, 0), (5, 4)])
def test_a_level_that_nearly_never_occurs_is_not_drawn(monkeypatch, levels, unlikely):
    """JAX's random numbers are multiples of 2^-23: 0 would draw the first level every time."""
    edge = 0 if unlikely == 0 else 1 - 2**-23
    monkeypatch.setattr(jax.random, "uniform", lambda _, *form: jnp.full(form[0], edge, form[1]))
    model = tiny_model("pixel_cnn", (2, 2, 1), levels).pixel_rnn
    (uniforms,) = sample.value_uniforms(model.scales, KEY, jnp.arange(3))
    logits = np.where(np.arange(levels) == unlikely, -40.0, 0.0)
    logits = logits[1:] - logits[:1] if levels == 2 else logits
    outputs = jnp.broadcast_to(jnp.float32(logits), (*uniforms.shape, len(logits)))
    assert (model.likelihood.draw(outputs, uniforms, jnp.ones(())) != unlikely).all()


def test_frequencies_are_the_probabilities(monkeypatch):
    monkeypatch.setattr(tuning, "CPU_LANES", 3_750)
    shape, levels, options = (2, 2, 1), 2, dict(scales=(1, 2), num_classes=2)
    model = soft_model("row_lstm", shape, levels, size=0.6, layers=1, **options)
    images, count = all_images(shape, levels), 30_000
    condition, condition_of_samples = np.ones(len(images), int), np.ones(count, int)
    probabilities = np.exp(np.asarray(model.log_prob(images, condition), float))
    counts = frequencies(model.sample(KEY, count, condition_of_samples), levels)
    assert chi_square_is_plausible(counts, probabilities)
    assert not chi_square_is_plausible(counts, np.full(len(counts), 1 / len(counts)))
    # At another temperature each conditional is its power, normalised.
    powers = np.asarray(model.conditionals(images, condition), float) / 0.5
    powers -= np.log(np.exp(powers).sum(-1, keepdims=True))
    chosen = np.take_along_axis(powers, images[..., None].astype(int), axis=-1)
    probabilities = np.exp(chosen.sum(axis=(1, 2, 3, 4)))
    drawn = model.sample(KEY, count, condition_of_samples, temperature=0.5)
    assert chi_square_is_plausible(frequencies(drawn, levels), probabilities)


def test_temperature_zero_takes_the_most_probable_value():
    model = tiny_model("pixel_cnn", (2, 3, 2), 5)
    images = model.sample(KEY, 2, temperature=0)
    for almost in (1e-45, 1e-37):
        np.testing.assert_array_equal(model.sample(KEY, 2, temperature=almost), images)
    np.testing.assert_array_equal(images[0], images[1])
    np.testing.assert_array_equal(model.conditionals(images[:1]).argmax(-1), images[:1])


def test_an_image_depends_on_its_number_alone():
    """Not on how many are drawn with it, and not on the number of devices that share the work."""
    model = tiny_model("pixel_cnn", (2, 3, 2), 5)
    draw = functools.partial(model.sample_and_log_prob, temperature=0.5)
    many, many_log_probs = draw(KEY, 20)  # On three devices.
    few, few_log_probs = draw(KEY, 3)  # On one.
    np.testing.assert_array_equal(few, many[:3])
    np.testing.assert_array_equal(few_log_probs, many_log_probs[:3])
    np.testing.assert_array_equal(model.sample(KEY, 3, temperature=0.5), few)
    # Images of the second and the third device.
    some = jax.jit(model.pixel_rnn.sample, static_argnums=2)
    later = some(model.params, KEY, 8, temperature=0.5, first=11)
    np.testing.assert_array_equal(later, many[11:19])
    assert len(np.unique(many.reshape(20, -1), axis=0)) > 10
    assert (model.sample(jax.random.key(8), 3, temperature=0.5) != few).any()


def test_a_key_may_be_of_any_kind_and_samples_have_the_smallest_type():
    key = jax.random.key(0, impl="rbg")
    for levels, dtype in ((256, np.uint8), (257, np.uint16), (70_000, np.int32)):
        model = tiny_model("pixel_cnn", (2, 3, 2), levels)
        sampled = jax.eval_shape(lambda own=model: own.pixel_rnn.sample(own.params, key, 6))
        assert sampled.dtype == dtype
