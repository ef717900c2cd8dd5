"""The Python entry: batches of any size, and clear errors for what does not fit."""

import jax
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import image_model

CONFIG = prnn.ModelConfig("row_lstm", layers=1, features=3, head_features=4)
IMAGES = np.random.default_rng(0).integers(5, size=(11, 3, 4, 1), dtype=np.uint8)


@pytest.fixture(scope="module")
def model():
    return prnn.create(CONFIG, image_shape=(3, 4, 1), levels=5)


def test_any_batch_size_gives_the_same(model, monkeypatch):
    whole = model.log_prob(IMAGES)
    assert whole.shape == (11,)
    monkeypatch.setattr(image_model, "BATCH_BYTES", 4 * 4 * 12 * 24)  # Batches of four.
    np.testing.assert_allclose(model.log_prob(IMAGES), whole, rtol=1e-5)
    for size in (0, 1, 3, 4, 5):
        np.testing.assert_allclose(model.log_prob(IMAGES[:size]), whole[:size], rtol=1e-5)
    assert model.conditionals(IMAGES[:0]).shape == (0, 3, 4, 1, 5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.int64])
def test_integers_of_any_type(model, dtype):
    np.testing.assert_array_equal(model.log_prob(IMAGES.astype(dtype)), model.log_prob(IMAGES))


def test_bits_per_dim(model):
    np.testing.assert_allclose(
        model.bits_per_dim(IMAGES), -model.log_prob(IMAGES) / 12 / np.log(2), rtol=1e-6
    )


def test_seeds_and_levels():
    one, same, other = (prnn.create(CONFIG, (3, 4, 1), 5, seed=seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.log_prob(IMAGES), same.log_prob(IMAGES))
    assert (one.log_prob(IMAGES) != other.log_prob(IMAGES)).all()
    many = prnn.create(CONFIG, (3, 4, 1), 1000)
    assert many.conditionals(IMAGES[:1] * np.uint16(200)).shape == (1, 3, 4, 1, 1000)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (IMAGES[..., 0], r"images must have shape \[B, 3, 4, 1\], got \[11, 3, 4\]"),
        (IMAGES[0], r"images must have shape \[B, 3, 4, 1\], got \[3, 4, 1\]"),
        (IMAGES / 5, "images must be integers from 0 to 4 .unscaled., got float64"),
        (IMAGES + 1, "images must have values from 0 to 4, got 1 to 5"),
        (IMAGES.astype(int) - 1, "images must have values from 0 to 4, got -1 to 3"),
    ],
)
def test_images_that_do_not_fit_are_refused(model, images, message):
    with pytest.raises(prnn.UserError, match=message):
        model.log_prob(images)


def test_impossible_formats_are_refused():
    with pytest.raises(prnn.UserError, match="levels must be at least 2, got 1"):
        prnn.create(CONFIG, (3, 4, 1), 1)
    with pytest.raises(prnn.UserError, match=r"image_shape must be \(H, W, C\)"):
        prnn.create(CONFIG, (3, 4), 2)


def test_importing_changes_no_setting():
    before = dict(jax.config.values)
    __import__("importlib").reload(prnn)
    assert dict(jax.config.values) == before


def test_load_refuses_what_is_no_workdir(tmp_path):
    with pytest.raises(prnn.UserError, match="holds no training run"):
        prnn.load(tmp_path)
