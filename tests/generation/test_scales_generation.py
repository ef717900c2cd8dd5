"""Generation and completion by models with several scales, with classes, or both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_models import (
    all_images,
    chi_square_is_plausible,
    frequencies,
    model_and_parameters,
    posterior,
    soft_model,
    total_variation,
    whole_map_outputs,
    with_large_conditions,
    with_scaled_outputs,
)

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.generation import sample
from pixel_rnn_jax.generation.complete import is_exact, particle_filter
from pixel_rnn_jax.generation.decode import decode

KEY = jax.random.key(3)
TINY = dict(layers=1, features=3, head_features=4, first_kernel=3)


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("row_lstm", dict(scales=(2, 4), classes=2)),
        ("pixel_cnn", dict(layers=1)),
        pytest.param("pixel_cnn", dict(scales=(2, 4), classes=2), marks=pytest.mark.slow),
        pytest.param("diagonal_bilstm", dict(scales=(2, 4), classes=2), marks=pytest.mark.slow),
        pytest.param("row_lstm", dict(), marks=pytest.mark.slow),
        pytest.param("diagonal_bilstm", dict(), marks=pytest.mark.slow),
    ],
)
def test_images_and_terms_are_those_of_one_full_pass_a_value(x64, architecture, options):
    model, params = model_and_parameters(architecture, (4, 6, 2), 3, dtype="float64", **options)
    random, count = np.random.default_rng(0), 5
    labels = np.array([0, 1, 1, 0, 1]) if model.config.classes else None
    known = random.random((count, 4, 6, 2)) < 0.2
    images = np.where(known, random.integers(3, size=known.shape), 0)

    @jax.jit
    def generate(params):
        indices, batch = jnp.arange(count), Batch(images, labels)
        return sample.generate(model, params, KEY, 1.0, indices, batch, jnp.asarray(known))

    outputs = jax.jit(lambda params, images: whole_map_outputs(model, params, images, labels))
    drawn, terms = generate(params)
    images, expected_terms = images.copy(), np.zeros(known.shape)
    for number, scale in enumerate(model.scales):
        uniforms = sample.value_uniforms(model, KEY, jnp.arange(count))[number]
        # Views: what is drawn lands in the whole image.
        own, own_known, own_terms = map(scale.subsample, (images, known, expected_terms))
        for r, c, channel in np.ndindex(scale.network.image_shape):
            if not scale.given[r, c]:
                here = (slice(None), r, c, channel)
                found = outputs(params, images)[number][here]
                values = model.likelihood.draw(found, uniforms[here], 1.0)
                own[here] = np.where(own_known[here], own[here], values)
                own_terms[here] = model.likelihood.log_prob(found, own[here])
    np.testing.assert_array_equal(drawn, images)
    np.testing.assert_allclose(terms, expected_terms, atol=1e-9)
    assert len(np.unique(images.reshape(count, -1), axis=0)) > 2


@pytest.mark.parametrize(
    ("heights", "shape"),
    [((1, 2), (2, 4, 1)), pytest.param((1, 2, 4), (4, 4, 1), marks=pytest.mark.slow)],
)
def test_plain_form_adds_up_to_how_often_its_chain_agrees_with_itself(heights, shape):
    model, params = model_and_parameters("pixel_cnn", shape, 2, scales=heights, exact=False, **TINY)
    total = np.exp(jax.jit(model.log_prob)(params, all_images(shape, 2)).astype(float)).sum()
    assert total < 0.9
    count = 20_000
    uniforms = sample.value_uniforms(model, KEY, jnp.arange(count))
    start = [jnp.zeros(uniform.shape, int) for uniform in uniforms]

    def choose(drawn, outputs, place):
        here = (slice(None), place.row, place.column, place.channel)
        values = model.likelihood.draw(outputs, uniforms[place.scale][here], jnp.ones(()))
        own = drawn[place.scale].at[here].set(values)
        return [*drawn[: place.scale], own, *drawn[place.scale + 1 :]], values

    _, drawn = jax.jit(lambda params: decode(model, params, choose, start, lanes=count))(params)
    agrees = np.ones(count, bool)
    for scale, before, own in zip(model.scales[1:], drawn, drawn[1:], strict=False):
        ratio = scale.network.ratio
        agrees &= (np.asarray(own)[:, ::ratio, ::ratio] == before).all(axis=(1, 2, 3))
    error = np.sqrt(total * (1 - total) / count)
    assert abs(agrees.mean() - total) < 3 * error


def test_frequencies_are_the_probabilities_of_each_class(monkeypatch):
    monkeypatch.setattr(sample, "CPU_LANES", 2500)
    model = soft_model("row_lstm", (2, 2, 1), 2, size=2.0, scales=(1, 2), classes=2, layers=1)
    model.params = with_large_conditions(model.params)
    images, by_class = all_images((2, 2, 1), 2), []
    for label in range(2):
        chances = np.exp(model.log_prob(images, np.full(16, label)).astype(float))
        counts = frequencies(model.sample(KEY, 20_000, np.full(20_000, label)), 2)
        assert chi_square_is_plausible(counts, chances)
        by_class.append((counts, chances))
    assert not chi_square_is_plausible(by_class[0][0], by_class[1][1])


def test_what_is_exact():
    def exact(known, **options):
        model, _ = model_and_parameters("pixel_cnn", (4, 4, 2), 2, scales=(2, 4), **options)
        return is_exact(model, known)

    known = np.zeros((4, 4, 2), bool)
    known[::2, ::2] = True  # The smaller image.
    assert exact(known)
    # The plain form draws the pixels of the smaller image a second time, after others.
    assert not exact(known, exact=False)
    assert exact(known & False, exact=False) and exact(known | True, exact=False)
    known[0, 1] = True
    assert exact(known)
    known[0, 3] = known[1, 0] = True
    assert exact(known)
    known[0, 3, 0] = False
    assert not exact(known)
    assert not exact(np.arange(32).reshape(4, 4, 2) < 16)


def lively_model(architecture, shape, **options):
    """A model of binary images whose values depend much on one another and on the condition."""
    model, params = model_and_parameters(architecture, shape, 2, **options)
    params = jax.tree.map(lambda x: 2 * x if x.ndim > 1 else (x - 2) / 2, params)
    params, images = with_large_conditions(params), all_images(shape, 2)
    labels = np.arange(len(images)) % model.config.classes
    found = jax.jit(lambda params: whole_map_outputs(model, params, images, labels))(params)
    factors = [6 / np.abs(own - np.mean(own)).max() for own in found]
    return prnn.ImageModel(model, with_scaled_outputs(model, params, factors))


@pytest.mark.parametrize(
    ("architecture", "seed"),
    [("row_lstm", 4), pytest.param("diagonal_bilstm", 6, marks=pytest.mark.slow)],
)
def test_particles_have_the_exact_posterior(architecture, seed):
    """Values of either scale are known, with unknown ones of the same scale before and behind."""
    model = lively_model(architecture, (2, 6, 1), scales=(1, 2), classes=2, seed=seed)
    known = np.zeros((2, 6, 1), bool)
    known[0, [2, 3]] = known[1, [1, 2]] = True
    # The least likely of some images, so that many particles are replaced.
    candidates = all_images((2, 6, 1), 2)[::129]
    image = min(candidates, key=lambda image: posterior(model, image, known, 1)[1])
    exact, log_prob_known = posterior(model, image, known, 1)
    one = Batch(image.astype(np.int32), jnp.ones((), int))
    run = jax.jit(
        lambda params: particle_filter(
            model.pixel_rnn, params, KEY, one, jnp.asarray(known), 16_384
        )
    )
    values, found = jax.tree.map(np.asarray, run(model.params))
    assert found.effective_sample_size < 8192
    assert (values == image)[:, known].all()
    weights = np.exp(found.log_weights.astype(float))
    assert total_variation(frequencies(values, 2, weights), exact) < 0.03
    assert found.log_evidence == pytest.approx(log_prob_known, abs=0.06)


def test_completion_with_classes_and_particles():
    options = dict(scales=(1, 2), classes=2, **TINY)
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (2, 2, 2), 7, **options))
    random = np.random.default_rng(0)
    images, labels = random.integers(7, size=(8, 2, 2, 2)), np.arange(8) % 2
    known = np.concatenate([random.random((4, 2, 2, 2)) < 0.5, np.ones((4, 2, 2, 2), bool)])
    done = model.complete(KEY, images, known, labels, particles=4)
    assert (done.images == images)[known].all()
    assert (done.images != images)[~known].any()
    expected = model.log_prob(images, labels)
    np.testing.assert_allclose(done.log_prob_known[4:], expected[4:], rtol=1e-4)
