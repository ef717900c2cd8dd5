"""Completion: known values stay, and the completions have the distribution that they should."""

import jax
import numpy as np
import pytest
from random_models import (
    ARCHITECTURES,
    all_images,
    chi_square_is_plausible,
    frequencies,
    model_and_parameters,
    posterior,
    soft_model,
    total_variation,
)

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.generation import complete, sample

KEY = jax.random.key(5)
SHAPE, LEVELS = (2, 3, 1), 2
IMAGES = all_images(SHAPE, LEVELS)
LATE = np.array([[False, True, True], [False, True, True]])[..., None]
"""Known values behind unknown ones."""


@pytest.fixture(scope="module")
def models():
    """Models of each architecture; `size` makes some values tell much about others."""
    return {name: soft_model(name, SHAPE, LEVELS, size=4.0, seed=1) for name in ARCHITECTURES}


@pytest.fixture(scope="module")
def model(models):
    return models["diagonal_bilstm"]


def telling_image(model):
    """The image whose late values tell most about the others: plain completion errs most."""
    terms = model.log_prob(IMAGES, per_pixel=True).astype(float)
    drawn = np.exp(np.where(LATE, 0, terms).sum(axis=(1, 2, 3)))

    def error(image):
        plain = np.where(((image == IMAGES) | ~LATE).all(axis=(1, 2, 3)), drawn, 0)
        return total_variation(plain, posterior(model, image, LATE)[0])

    return max(IMAGES, key=error)


def test_known_first_is_exact(monkeypatch):
    monkeypatch.setattr(sample, "CPU_LANES", 1000)
    model = soft_model("row_lstm", SHAPE, LEVELS, seed=1, layers=1)
    known = np.arange(6).reshape(SHAPE) < 3
    done = model.complete(KEY, np.repeat(IMAGES[40:41], 8000, axis=0), known)
    exact, log_prob_known = posterior(model, IMAGES[40], known)
    counts = frequencies(done.images, LEVELS)
    assert counts[exact == 0].sum() == 0
    assert chi_square_is_plausible(counts[exact > 0], exact[exact > 0])
    np.testing.assert_allclose(done.log_prob_known, log_prob_known, rtol=1e-4)
    np.testing.assert_array_equal(done.effective_sample_size, 1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_particles_have_the_exact_posterior(models, architecture):
    model = models[architecture]
    image = telling_image(model)
    one = Batch(image.astype(np.int32))
    run = jax.jit(
        lambda params: complete.particle_filter(model.model, params, KEY, one, LATE, 4096)
    )
    values, found = jax.tree.map(np.asarray, run(model.params))
    assert (values == image)[:, LATE].all()
    weights = np.exp(found.log_weights.astype(float))
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    exact, _ = posterior(model, image, LATE)
    assert total_variation(frequencies(values, LEVELS, weights), exact) < 0.02


def test_one_particle_ignores_what_is_known_further_on(model, monkeypatch):
    monkeypatch.setattr(sample, "CPU_LANES", 512)
    image = telling_image(model)
    plain = model.complete(KEY, np.repeat(image[None], 4096, axis=0), LATE)
    exact, _ = posterior(model, image, LATE)
    assert total_variation(frequencies(plain.images, LEVELS) / 4096, exact) > 0.03


def test_returned_completions_have_the_posterior_and_the_evidence_is_unbiased(model):
    """200 runs of 64 particles; one completion of each is returned."""
    image = telling_image(model)
    exact, log_prob_known = posterior(model, image, LATE)
    runs = np.repeat(image[None], 200, axis=0)
    done = model.complete(KEY, runs, LATE, particles=64)
    estimates = np.exp(done.log_prob_known.astype(float))
    error = estimates.std(ddof=1) / np.sqrt(len(runs))
    assert abs(estimates.mean() - np.exp(log_prob_known)) < 3 * error
    assert error < 0.05 * np.exp(log_prob_known)
    assert total_variation(frequencies(done.images, LEVELS) / 200, exact) < 0.1
    assert (done.effective_sample_size >= 1).all() and (done.effective_sample_size < 64).all()


@pytest.mark.parametrize("particles", [1, 4])
@pytest.mark.parametrize("levels", [2, 256])
def test_known_values_are_unchanged(particles, levels):
    model = prnn.ImageModel(*model_and_parameters("row_lstm", (2, 3, 3), levels, layers=1))
    random = np.random.default_rng(0)
    images = random.integers(levels, size=(3, 2, 3, 3))
    for shape in [(2, 3), (2, 3, 3), (3, 2, 3, 1), (3, 2, 3, 3)]:
        known = random.random(shape) < 0.5
        done = model.complete(KEY, images, known, particles=particles)
        mask = np.broadcast_to(known[..., None] if known.ndim == 2 else known, images.shape)
        assert (done.images == images)[mask].all()
        assert (done.images != images)[~mask].any()
        assert done.images.dtype == np.uint8


@pytest.mark.parametrize("particles", [1, 3])
def test_everything_or_nothing_known(model, particles):
    images, everything = IMAGES[:9], np.ones((2, 3), bool)
    whole = model.complete(KEY, images, everything, particles=particles)
    np.testing.assert_array_equal(whole.images, images)
    np.testing.assert_allclose(whole.log_prob_known, model.log_prob(images), rtol=1e-4, atol=1e-5)
    free = model.complete(KEY, images, ~everything, particles=particles)
    np.testing.assert_allclose(free.log_prob_known, 0, atol=1e-6)
    if particles == 1:
        np.testing.assert_array_equal(free.images, model.sample(KEY, 9))
    else:
        none = model.complete(KEY, images[:0], everything, particles=particles)
        assert none.images.shape == (0, *SHAPE) and none.images.dtype == np.uint8
    # On eight devices in two turns, and on three.
    many = model.complete(KEY, IMAGES[:11], LATE, particles=particles)
    few = model.complete(KEY, IMAGES[:3], LATE, particles=particles)
    np.testing.assert_array_equal(few.images, many.images[:3])
    np.testing.assert_array_equal(few.log_prob_known, many.log_prob_known[:3])


def test_is_exact(model):
    assert complete.is_exact(model.model, np.arange(6).reshape(SHAPE) < 3)
    assert complete.is_exact(model.model, np.zeros((5, *SHAPE), bool))
    assert not complete.is_exact(model.model, LATE)
    assert not complete.is_exact(model.model, np.stack([np.ones(SHAPE, bool), LATE]))


@pytest.mark.parametrize(
    ("known", "particles", "message"),
    [
        (np.array(True), 1, "known must have shape"),
        (np.ones((2, 3)), 1, "known must be booleans, got float64 values"),
        (
            np.ones((3, 2), bool),
            1,
            r"known must have shape \[2, 3\], \[2, 3, 1\] or \[4, 2, 3, 1\]",
        ),
        (np.ones((2, 3), bool), 0, "particles must be at least 1, got 0"),
    ],
)
def test_impossible_arguments_are_refused(model, known, particles, message):
    with pytest.raises(prnn.UserError, match=message):
        model.complete(KEY, IMAGES[:4], known, particles=particles)
