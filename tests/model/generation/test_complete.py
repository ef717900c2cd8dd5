"""Completion: known values stay, and the completions have the distribution that they should."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import (
    all_images,
    frequencies,
    model_and_parameters,
    posterior,
    random_batch,
    tiny_model,
    whole_map_outputs,
    with_large_conditions,
    with_scaled_outputs,
)

import pixel_rnn_jax as prnn
from pixel_rnn_jax.model.generation import complete

KEY = jax.random.key(5)
SHAPE = (2, 4, 1)
IMAGES = all_images(SHAPE, 2)
KNOWN = np.array([[0, 1, 1, 0], [1, 0, 1, 1]], bool)[..., None]
"""Known values before and after unknown ones."""
UNITS = dict(mean=(3.0, -2.0), std=(2.0, 0.5))
CHAIN = dict(scales=(1, 2), num_classes=2)


@functools.cache
def lively(architecture, label=None, **options):
    """A model of binary images whose values depend much on one another; an image; its posterior.

    The known values of the image are the least likely ones, so that many particles are replaced.
    """
    model, params = model_and_parameters(architecture, SHAPE, 2, layers=1, **options)
    params = jax.tree.map(lambda x: 2 * x if x.ndim > 1 else (x - 2) / 2, params)
    params = with_large_conditions(params)
    condition = None if label is None else np.full(len(IMAGES), label)
    outputs = jax.jit(lambda params: whole_map_outputs(model, params, IMAGES, condition))(params)
    factors = [4 / np.abs(x - np.mean(x)).max() for x in outputs]
    model = prnn.ImageModel(model, with_scaled_outputs(model, params, factors))
    patterns = IMAGES[:, KNOWN] @ 2 ** np.arange(KNOWN.sum())
    chances = np.exp(np.asarray(model.log_prob(IMAGES, condition), float))
    rarest = np.bincount(patterns, chances).argmin()
    image = IMAGES[patterns == rarest][0]
    return model, image, *posterior(model, image, KNOWN, label)


def total_variation(one, other):
    return 0.5 * np.abs(one - other).sum()


@pytest.mark.parametrize(
    ("architecture", "options"),
    [("diagonal_bilstm", {}), pytest.param("row_lstm", CHAIN, marks=pytest.mark.slow)],
)
def test_particles_have_the_exact_posterior(architecture, options):
    label = 1 if options else None
    model, image, exact, log_evidence = lively(architecture, label, **options)
    image, condition = image.astype(np.int32), label and jnp.asarray(label)

    @jax.jit
    def run(params):
        arguments = jnp.asarray(image), jnp.asarray(KNOWN), condition, 4096
        return complete.particle_filter(model.pixel_rnn.scales, params, KEY, *arguments)

    values, result = jax.tree.map(np.asarray, run(model.params))
    assert (values == image)[:, KNOWN].all()
    weights = np.exp(result.log_weights.astype(float))
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    assert total_variation(frequencies(values, 2, weights), exact) < 0.02
    assert result.log_evidence == pytest.approx(log_evidence, abs=0.05)
    # Resampling leaves at least half of the particles' worth.
    assert result.effective_sample_size < 2048 <= 1 / (weights**2).sum()


def test_returned_completions_have_the_posterior_and_the_evidence_is_unbiased():
    """200 runs of 64 particles; one completion of each is returned.

    One particle ignores what is known further on.
    """
    model, image, exact, log_evidence = lively("diagonal_bilstm")
    runs = np.repeat(image[None], 200, axis=0)
    done = model.complete(KEY, runs, KNOWN, particles=64)
    estimates = np.exp(np.asarray(done.log_evidence, float))
    error = estimates.std(ddof=1) / np.sqrt(len(runs))
    assert abs(estimates.mean() - np.exp(log_evidence)) < 3 * error
    assert error < 0.05 * np.exp(log_evidence)
    assert total_variation(frequencies(done.images, 2) / 200, exact) < 0.1
    assert (done.effective_sample_size >= 1).all() and (done.effective_sample_size < 64).all()
    alone = model.complete(KEY, runs, KNOWN)
    assert total_variation(frequencies(alone.images, 2) / 200, exact) > 0.2


def test_resampling_keeps_each_particle_as_often_as_its_weight_says():
    chances, offsets = jnp.array([0.05, 0.1, 0.35, 0.2, 0.3]), (jnp.arange(1000) + 0.5) / 1000
    weights = complete.Weights(jnp.log(chances) - 2, jnp.zeros(()), jnp.ones(()))
    resampled = jax.vmap(complete._resampled, (None, None, 0))
    after, lanes = resampled(weights, jnp.arange(5), offsets)
    counts = np.stack([np.bincount(each, minlength=5) for each in np.asarray(lanes)])
    np.testing.assert_allclose(counts.mean(0), 5 * chances, atol=2e-3)
    assert (abs(counts - 5 * np.asarray(chances)) < 1).all()
    np.testing.assert_allclose(after.log_evidence, -2 - np.log(5), rtol=1e-5)


@pytest.mark.parametrize(
    ("levels", "particles", "options"),
    [(256, 1, {}), pytest.param(7, 4, CHAIN, marks=pytest.mark.slow)],
)
def test_known_values_are_unchanged(levels, particles, options):
    model = tiny_model("pixel_cnn", (2, 4, 3), levels, **options)
    random, (images, condition) = np.random.default_rng(0), random_batch(model.pixel_rnn, 3)
    for shape in [(2, 4), (3, 2, 4, 1)]:
        known = random.random(shape) < 0.5
        done = model.complete(KEY, images, known, condition, particles=particles)
        mask = np.broadcast_to(known[..., None] if known.ndim == 2 else known, images.shape)
        assert (done.images == images)[mask].all()
        assert (done.images != images)[~mask].any()
        assert done.images.dtype == np.uint8
    whole = model.complete(KEY, images, np.ones((2, 4), bool), condition, particles=particles)
    np.testing.assert_array_equal(whole.images, images)
    np.testing.assert_allclose(whole.log_evidence, model.log_prob(images, condition), rtol=1e-4)


def test_a_density_completes_what_follows_known_values():
    """Known values stay to the last bit, and unknown ones may be anything, even NaN."""
    options = dict(output="gaussian_mixture", mixtures=2, condition_vector=2)
    model = tiny_model("pixel_cnn", (2, 4, 2), 0, units=UNITS, **options)
    random = np.random.default_rng(0)
    known = np.arange(16).reshape(2, 4, 2) < 7
    images = np.where(known, random.uniform(0, 5, (3, *known.shape)), np.nan).astype(np.float32)
    condition = random.normal(size=(3, 2))
    done = model.complete(KEY, images, known, condition, particles=3)
    assert done.images.dtype == np.float32 and np.isfinite(done.images).all()
    np.testing.assert_array_equal(np.asarray(done.images)[:, known], images[:, known])
    terms = np.asarray(model.log_prob(done.images, condition, per_value=True))
    np.testing.assert_allclose(done.log_evidence, terms[:, known].sum(-1), rtol=1e-4)
    np.testing.assert_allclose(done.effective_sample_size, 3, rtol=1e-4)
    assert len(np.unique(np.asarray(done.images)[:, ~known], axis=0)) == 3


@pytest.mark.slow
def test_a_completion_is_the_same_on_several_devices_and_on_one():
    model, *_ = lively("pixel_cnn")
    many = model.complete(KEY, IMAGES[:11], KNOWN, particles=3)
    few = model.complete(KEY, IMAGES[:1], KNOWN, particles=3)
    np.testing.assert_array_equal(few.images, many.images[:1])
    np.testing.assert_array_equal(few.log_evidence, many.log_evidence[:1])


def test_is_exact():
    one = tiny_model("pixel_cnn", SHAPE, 2).pixel_rnn.scales
    assert complete.is_exact(one, np.arange(8).reshape(SHAPE) < 3)
    assert not complete.is_exact(one, np.stack([np.ones(SHAPE, bool), KNOWN]))

    def exact(known, **options):
        model = tiny_model("pixel_cnn", (4, 4, 2), 2, scales=(2, 4), **options)
        return complete.is_exact(model.pixel_rnn.scales, known)

    known = np.zeros((4, 4, 2), bool)
    known[::2, ::2] = True  # The smaller image.
    assert exact(known)
    # The plain form draws the pixels of the smaller image a second time, after others.
    assert not exact(known, copy_coarse=False)
    assert exact(known & False, copy_coarse=False) and exact(known | True, copy_coarse=False)
    known[0, 1] = True
    known[0, 3] = known[1, 0] = True
    assert exact(known)
    known[0, 3, 0] = False
    assert not exact(known)
    assert not exact(np.arange(32).reshape(4, 4, 2) < 16)
