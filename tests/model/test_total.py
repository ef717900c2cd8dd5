"""A known sum of all values: exact probabilities, draws, completions and files."""

import jax
import numpy as np
import pytest
from helpers.random_models import (
    all_images,
    frequencies,
    model_and_parameters,
    posterior,
    soft_model,
    tiny_model,
)

import pixel_rnn_jax as prnn

BINARY, THREE = ((2, 3, 1), 2, 3), ((2, 1, 2), 3, 5)
SLOW = [("pixel_cnn", THREE), ("row_lstm", BINARY), ("row_lstm", THREE)]
CASES = ("diagonal_bilstm", BINARY), *(pytest.param(case, marks=pytest.mark.slow) for case in SLOW)


@pytest.fixture(params=CASES)
def case(request):
    architecture, (shape, levels, total) = request.param
    model, params = model_and_parameters(architecture, shape, levels, total=total)
    return model, params, all_images(shape, levels)


def test_the_images_of_the_total_have_all_probability(case, x64):
    model, params, images = case
    log_prob = np.asarray(jax.jit(model.log_prob)(params, images))
    right = images.sum((1, 2, 3)) == model.config.total
    assert np.exp(log_prob[right]).sum() == pytest.approx(1, abs=1e-6)
    assert (log_prob[~right] == -np.inf).all()
    gradient = jax.jit(jax.grad(lambda p: model.log_prob(p, images[right]).sum()))(params)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    conditionals = np.asarray(jax.jit(model.conditionals)(params, images[right]))
    np.testing.assert_allclose(np.exp(conditionals).sum(-1), 1, rtol=1e-5)
    terms = np.take_along_axis(conditionals, images[right][..., None], -1).sum((1, 2, 3, 4))
    np.testing.assert_allclose(terms, log_prob[right], rtol=1e-5)


@pytest.mark.slow
def test_draws_have_the_total_and_the_probability(case):
    model, params, images = case
    sample = jax.jit(model.sample_and_log_prob, static_argnums=2)
    drawn, log_prob = sample(params, jax.random.key(0), 500)
    assert (drawn.sum((1, 2, 3)) == model.config.total).all()
    expected = jax.jit(model.log_prob)(params, drawn)
    np.testing.assert_allclose(log_prob, expected, rtol=1e-4, atol=1e-5)
    for temperature in (0.0, 0.5):
        cold, _ = sample(params, jax.random.key(0), 500, temperature=temperature)
        assert (cold.sum((1, 2, 3)) == model.config.total).all()
    known = np.arange(model.num_values).reshape(model.image_shape) < 2
    done = jax.jit(model.complete)(params, jax.random.key(1), drawn[:9], known)
    assert (done.images.sum((1, 2, 3)) == model.config.total).all()
    np.testing.assert_array_equal(done.images[:, known], drawn[:9, known])
    same = [(images[:, known] == image[known]).all(1) for image in np.asarray(drawn[:9])]
    log_probs = np.asarray(jax.jit(model.log_prob)(params, images))
    expected = [np.log(np.exp(log_probs[rows]).sum()) for rows in same]
    np.testing.assert_allclose(done.log_evidence, expected, rtol=1e-4, atol=1e-5)


def test_files_hold_images_of_the_total():
    shape, levels, total = THREE
    model = tiny_model("row_lstm", shape, levels, total=total)
    images = model.sample(jax.random.key(0), 70)
    data = model.compress(images)
    np.testing.assert_array_equal(model.decompress(data), images)
    assert len(data) + model.log_prob(images).sum() / np.log(2) / 8 < 90


@pytest.mark.parametrize(("levels", "total", "particles"), [(2, 3, 1), (3, 6, 4)])
def test_completions_keep_the_total_whatever_is_known(levels, total, particles):
    """Draws times weights are the exact posterior; their mean is the probability of the known."""
    model, count = soft_model("pixel_cnn", (2, 3, 1), levels, total=total, layers=1), 2000
    known = np.array([[0, 0, 1], [0, 1, 0]], bool)[..., None]
    image = np.array([[0, 1, 0], [1, 1, 0]]).reshape(2, 3, 1) * (levels - 1)
    exact, log_evidence = posterior(model, image, known)
    done = model.complete(
        jax.random.key(0), np.repeat(image[None], count, 0), known, particles=particles
    )
    assert (done.images.sum((1, 2, 3)) == total).all() and (exact > 0).sum() > 1
    weights = np.exp(np.asarray(done.log_evidence, float) - log_evidence)
    assert abs(weights.mean() - 1) < 4 * weights.std() / count**0.5 < 0.1
    found = frequencies(done.images, levels, weights if particles == 1 else None) / count
    assert 0.5 * abs(found - exact).sum() < 0.05 * (1 if particles == 1 else 3)


def test_the_one_completion_that_there_is():
    model = tiny_model("pixel_cnn", (4, 4, 1), 2, total=8)
    known = np.arange(16).reshape(4, 4, 1) >= 8
    done = model.complete(jax.random.key(0), [known * 1] * 2, known, particles=3)
    np.testing.assert_array_equal(done.images, [known] * 2)
    np.testing.assert_allclose(done.log_evidence, model.log_prob(done.images), rtol=1e-4)
    np.testing.assert_allclose(done.effective_sample_size, 3, rtol=1e-4)


def test_images_of_another_sum_are_refused():
    model = tiny_model("pixel_cnn", (2, 3, 1), 2, total=3)
    images = np.array([1, 1, 1, 0, 0, 0] * 2).reshape(2, 2, 3, 1)
    known = np.arange(6).reshape(2, 3) < 5
    model.log_prob(images)
    for wrong in (1 - images * 0, images * 0):
        with pytest.raises(prnn.UserError, match=r"model\.total=3"):
            model.log_prob(wrong)
        with pytest.raises(prnn.UserError, match=r"model\.total=3"):
            model.complete(jax.random.key(0), wrong, known)
    for options in (dict(total=7), dict(total=1, output="discretized_logistic_mixture")):
        with pytest.raises(prnn.UserError, match=r"model\.total"):
            tiny_model("pixel_cnn", (2, 3, 1), 2, **options)
    with pytest.raises(prnn.UserError, match=r"model\.total"):
        prnn.ModelConfig(total=3, scales=(1, 2))
