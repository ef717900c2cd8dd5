"""The Python entry: batches of any size, and clear errors for what does not fit."""

import importlib

import jax
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import image_model
from pixel_rnn_jax.models import PixelRNN

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


def test_seeds(model):
    same, other = (prnn.create(CONFIG, (3, 4, 1), 5, seed=seed) for seed in (0, 1))
    for one, two, three in zip(
        *(jax.tree.leaves(each.params) for each in (model, same, other)), strict=True
    ):
        np.testing.assert_array_equal(one, two)
        assert one.ndim == 1 or (one != three).any()  # Biases are zero.


def test_repr_says_what_the_model_is(model):
    size = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    assert repr(model) == (
        f"ImageModel(row_lstm, 1 layers, h=3, images 3x4x1 of 5 levels, {size:,} parameters)"
    )
    architectures = ("pixel_cnn", "row_lstm", "pixel_cnn")
    config = prnn.ModelConfig(scales=(1, 2, 4), scale_architectures=architectures, classes=3)
    several = repr(prnn.ImageModel(PixelRNN(config, (4, 8, 3), 256), {}))
    assert several.startswith("ImageModel(pixel_cnn and row_lstm, 7 layers, h=16, images 4x8x3 of")
    assert "256 levels, scales (1, 2, 4), 3 classes, 0 parameters" in several


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
    importlib.reload(prnn)
    assert dict(jax.config.values) == before


def test_load_refuses_what_is_no_workdir(tmp_path):
    with pytest.raises(prnn.UserError, match="holds no training run"):
        prnn.load(tmp_path)
