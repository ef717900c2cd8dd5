"""Sampling: what an image depends on, and that frequencies are the model's probabilities."""

import io
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tqdm
from test_incremental import model_and_parameters
from test_masks import ARCHITECTURES

import pixel_rnn_jax as prnn
from pixel_rnn_jax import joint, models, sample
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.likelihoods import Softmax
from pixel_rnn_jax.terminal import show_time

KEY = jax.random.key(7)


def soft_model(architecture, image_shape, levels, *, size=1.0, seed=0, **options):
    """A model with random parameters and no extreme probability: logits up to about `size`."""
    module, params = model_and_parameters(architecture, image_shape, levels, seed=seed, **options)
    images = all_images(image_shape, levels)
    labels = np.zeros(len(images), int) if module.config.classes else None
    for scale, outputs in zip(
        models.scales(module),
        joint.outputs(module, params, Batch(images, labels)),
        strict=True,
    ):
        last = scale.select(params)
        factor = size / np.abs(outputs).max()
        last["logits"] = jax.tree.map(lambda leaf, factor=factor: leaf * factor, last["logits"])
    return prnn.ImageModel(module, params)


def chi_square_is_plausible(counts, probabilities):
    """Whether counts may come from the distribution: within 4 standard deviations of chi-square."""
    expected = counts.sum() * probabilities
    assert probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert expected.min() > 5  # The statistic needs it.
    statistic = ((counts - expected) ** 2 / expected).sum()
    degrees = len(counts) - 1
    return abs(statistic - degrees) < 4 * np.sqrt(2 * degrees)


def frequencies(images, levels):
    """How often each image occurs, in the order of `all_images`."""
    digits = images.reshape(len(images), -1)
    places = levels ** np.arange(digits.shape[1])[::-1]
    return np.bincount(digits.astype(int) @ places, minlength=levels ** digits.shape[1])


def all_images(image_shape, levels):
    images = itertools.product(range(levels), repeat=int(np.prod(image_shape)))
    return np.array(list(images), np.uint8).reshape(-1, *image_shape)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("image_shape", "levels"), [((2, 2, 1), 3), ((2, 3, 1), 2)])
def test_frequencies_are_the_probabilities(monkeypatch, architecture, image_shape, levels):
    monkeypatch.setattr(sample, "CPU_LANES", 2500)
    model = soft_model(architecture, image_shape, levels)
    probabilities = np.exp(model.log_prob(all_images(image_shape, levels)).astype(float))
    counts = frequencies(model.sample(KEY, 100_000), levels)
    assert chi_square_is_plausible(counts, probabilities)
    uniform = np.full(len(counts), 1 / len(counts))
    assert not chi_square_is_plausible(counts, uniform)


def test_temperature():
    model = soft_model("row_lstm", (1, 2, 1), 3)
    images = all_images((1, 2, 1), 3)
    for temperature in (0.5, 2.0):
        terms = model.conditionals(images).astype(float)[:, 0, :, 0] / temperature
        terms -= np.log(np.exp(terms).sum(-1, keepdims=True))
        values = images[:, 0].astype(int)
        probabilities = np.exp(np.take_along_axis(terms, values, axis=-1).sum(axis=(1, 2)))
        counts = frequencies(model.sample(KEY, 20_000, temperature=temperature), 3)
        assert chi_square_is_plausible(counts, probabilities)


def test_temperature_zero_takes_the_most_probable_value():
    for levels in (2, 5):
        model = prnn.ImageModel(
            *model_and_parameters("diagonal_bilstm", (3, 4, 2), levels, layers=1)
        )
        images = model.sample(KEY, 2, temperature=0)
        for almost in (1e-45, 1e-37):
            np.testing.assert_array_equal(model.sample(KEY, 2, temperature=almost), images)
        np.testing.assert_array_equal(images[0], images[1])
        np.testing.assert_array_equal(model.conditionals(images[:1]).argmax(-1), images[:1])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_image_depends_on_its_number_alone(architecture):
    """Not on how many are drawn with it, and not on the number of devices that share the work."""
    model = prnn.ImageModel(*model_and_parameters(architecture, (3, 4, 2), 256, layers=1))
    many, many_log_probs = model.sample(KEY, 20, return_log_prob=True)  # On three devices.
    few, few_log_probs = model.sample(KEY, 3, return_log_prob=True)  # On one.
    np.testing.assert_array_equal(few, many[:3])
    np.testing.assert_array_equal(few_log_probs, many_log_probs[:3])
    assert len(np.unique(many.reshape(20, -1), axis=0)) == 20
    assert (model.sample(jax.random.key(8), 3) != few).any()


def test_log_prob_is_that_of_the_image():
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (4, 5, 3), 6))
    for temperature in (1, 0.5):
        images, log_probs = model.sample(KEY, 5, temperature=temperature, return_log_prob=True)
        np.testing.assert_allclose(log_probs, model.log_prob(images), rtol=1e-5)


@pytest.mark.parametrize(
    ("levels", "dtype"), [(2, np.uint8), (256, np.uint8), (257, np.uint16), (70_000, np.int32)]
)
def test_dtype(levels, dtype):
    config = prnn.ModelConfig("pixel_cnn", layers=1, features=2, head_features=2)
    images = prnn.create(config, (1, 2, 1), levels).sample(KEY, 2)
    assert images.dtype == dtype
    assert images.shape == (2, 1, 2, 1)


def test_no_images():
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (2, 2, 1), 3))
    assert model.sample(KEY, 0).shape == (0, 2, 2, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(n=-1), "n must be at least 0, got -1"),
        (dict(n=2.0), "n must be an integer, got 2.0"),
        (dict(n=1, temperature=-0.5), "temperature must be at least 0, got -0.5"),
        (dict(n=1, temperature=float("nan")), "temperature must be at least 0, got nan"),
    ],
)
def test_impossible_arguments_are_refused(arguments, message):
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (2, 2, 1), 3))
    with pytest.raises(prnn.UserError, match=message):
        model.sample(KEY, **arguments)


def test_a_number_is_no_key():
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (2, 2, 1), 3))
    with pytest.raises(prnn.UserError, match="key must be one of jax.random, .* got 0"):
        model.sample(0, 1)


def test_a_terminal_shows_that_time_passes():
    class Result:
        asked = 0

        def is_ready(self):
            self.asked += 1
            return self.asked > 12

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    result, terminal = Result(), Terminal()
    with tqdm.tqdm(total=1, disable=None, file=terminal) as progress:
        before = terminal.getvalue().count("0/1")
        show_time(progress, [result])
        assert terminal.getvalue().count("0/1") > before + 3
    assert result.asked == 13
    elsewhere = Result()
    show_time(tqdm.tqdm(disable=True), [elsewhere])
    assert elsewhere.asked == 0


def test_draw_inverts_the_cumulative_distribution():
    logits = jnp.log(jnp.array([[0.2, 0.5, 0.3]]))
    uniform = jnp.array([0.0, 0.19, 0.21, 0.69, 0.71, 0.999])
    drawn = Softmax(3).draw(jnp.broadcast_to(logits, (6, 3)), uniform, jnp.ones(()))
    np.testing.assert_array_equal(drawn, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(
        Softmax(2).draw(jnp.full((2, 1), np.log(3)), jnp.array([0.24, 0.26]), jnp.ones(())), [0, 1]
    )
