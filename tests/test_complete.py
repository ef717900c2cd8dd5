"""Completion: known values stay, and the completions have the distribution that they should."""

import jax
import numpy as np
import pytest
from test_incremental import model_and_parameters
from test_masks import ARCHITECTURES
from test_sample import all_images, chi_square_is_plausible, frequencies, soft_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax import complete, sample

KEY = jax.random.key(5)
SHAPE, LEVELS = (2, 3, 1), 2


def model_of(architecture="diagonal_bilstm", *, size=4.0):
    return soft_model(architecture, SHAPE, LEVELS, size=size, seed=1)


def posterior(model, image, known):
    """The exact probability of every image given the known values, and log p(known)."""
    images = all_images(SHAPE, LEVELS)
    joint = np.exp(model.log_prob(images).astype(float))
    joint[((images != image) & known).any(axis=(1, 2, 3))] = 0
    return joint / joint.sum(), np.log(joint.sum())


def total_variation(one, other):
    return 0.5 * np.abs(one - other).sum()


LATE = np.array([[False, True, True], [False, True, True]])[..., None]
"""Known values behind unknown ones."""


def telling_image(model):
    """The image whose late values tell most about the others: plain completion errs most."""
    images = all_images(SHAPE, LEVELS)
    terms = model.log_prob(images, per_pixel=True).astype(float)
    drawn = np.exp(np.where(LATE, 0, terms).sum(axis=(1, 2, 3)))

    def error(image):
        plain = np.where(((images == image) | ~LATE).all(axis=(1, 2, 3)), drawn, 0)
        return total_variation(plain, posterior(model, image, LATE)[0])

    return max(images, key=error)


def test_known_first_is_exact(monkeypatch):
    monkeypatch.setattr(sample, "CPU_LANES", 1000)
    model = model_of(size=1.0)
    known = np.arange(6).reshape(SHAPE) < 3
    image = all_images(SHAPE, LEVELS)[40]
    done = model.complete(KEY, np.repeat(image[None], 8000, axis=0), known)
    exact, log_prob_known = posterior(model, image, known)
    counts = frequencies(done.images, LEVELS)
    assert counts[exact == 0].sum() == 0
    assert chi_square_is_plausible(counts[exact > 0], exact[exact > 0])
    np.testing.assert_allclose(done.log_prob_known, log_prob_known, rtol=1e-4)
    np.testing.assert_array_equal(done.effective_sample_size, 1)


def particle_estimate(model, image, particles):
    """The weighted distribution of the particles over all images."""
    found = jax.jit(
        lambda params, key: complete.particle_filter(
            model.module, params, key, image.astype(np.int32), LATE, particles
        )
    )(model.params, KEY)
    values = np.asarray(found.values)
    assert (values == image)[:, LATE].all()
    weights = np.exp(np.asarray(found.log_weights, float))
    assert weights.sum() == pytest.approx(1, abs=1e-4)
    number = values.reshape(particles, -1) @ LEVELS ** np.arange(6)[::-1]
    return np.bincount(number, weights, minlength=LEVELS**6)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_particles_have_the_exact_posterior(monkeypatch, architecture):
    monkeypatch.setattr(sample, "CPU_LANES", 1000)
    model = model_of(architecture)
    image = telling_image(model)
    exact, _ = posterior(model, image, LATE)
    assert total_variation(particle_estimate(model, image, 4096), exact) < 0.02
    # Plain completion ignores what is known further on.
    plain = model.complete(KEY, np.repeat(image[None], 4096, axis=0), LATE)
    assert total_variation(frequencies(plain.images, LEVELS) / 4096, exact) > 0.03


def test_returned_completions_have_the_posterior_and_the_evidence_is_unbiased():
    """200 runs of 64 particles; one completion of each is returned."""
    model = model_of()
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
    model = prnn.ImageModel(*model_and_parameters("row_lstm", (4, 5, 3), levels))
    random = np.random.default_rng(0)
    images = random.integers(levels, size=(3, 4, 5, 3))
    for shape in [(4, 5), (4, 5, 3), (3, 4, 5, 1), (3, 4, 5, 3)]:
        known = random.random(shape) < 0.5
        done = model.complete(KEY, images, known, particles=particles)
        mask = np.broadcast_to(known[..., None] if known.ndim == 2 else known, images.shape)
        assert (done.images == images)[mask].all()
        assert (done.images != images)[~mask].any()
        assert done.images.dtype == np.uint8


def test_everything_or_nothing_known():
    model = model_of()
    images = all_images(SHAPE, LEVELS)[:9]
    for particles in (1, 3):
        whole = model.complete(KEY, images, np.ones((2, 3), bool), particles=particles)
        np.testing.assert_array_equal(whole.images, images)
        np.testing.assert_allclose(
            whole.log_prob_known, model.log_prob(images), rtol=1e-4, atol=1e-5
        )
        free = model.complete(KEY, images, np.zeros((2, 3), bool), particles=particles)
        np.testing.assert_allclose(free.log_prob_known, 0, atol=1e-6)
    np.testing.assert_array_equal(
        model.complete(KEY, images, np.zeros((2, 3), bool)).images, model.sample(KEY, 9)
    )
    assert len(model.complete(KEY, images[:0], np.ones((2, 3), bool), particles=3).images) == 0


def test_a_completion_depends_on_the_number_of_its_image_alone():
    model = model_of()
    images = all_images(SHAPE, LEVELS)[:11]
    many = model.complete(KEY, images, LATE, particles=5)  # On eight devices, in two turns.
    few = model.complete(KEY, images[:3], LATE, particles=5)  # On three.
    np.testing.assert_array_equal(few.images, many.images[:3])
    np.testing.assert_array_equal(few.log_prob_known, many.log_prob_known[:3])


def test_is_exact():
    module = model_of().module
    assert complete.is_exact(module, np.arange(6).reshape(SHAPE) < 3)
    assert complete.is_exact(module, np.zeros((5, *SHAPE), bool))
    assert not complete.is_exact(module, LATE)
    assert not complete.is_exact(module, np.stack([np.ones(SHAPE, bool), LATE]))


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
def test_impossible_arguments_are_refused(known, particles, message):
    with pytest.raises(prnn.UserError, match=message):
        model_of().complete(KEY, all_images(SHAPE, LEVELS)[:4], known, particles=particles)
