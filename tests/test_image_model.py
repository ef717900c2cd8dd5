"""The Python API: batches of any size, and clear errors for what does not fit."""

import sys

import jax
import numpy as np
import programs
import pytest
from random_models import model_and_parameters

import pixel_rnn_jax as prnn
from pixel_rnn_jax import image_model
from pixel_rnn_jax.pixel_rnn import PixelRNN

CONFIG = prnn.ModelConfig("row_lstm", layers=1, features=3, head_features=4)
IMAGES = np.random.default_rng(0).integers(5, size=(11, 3, 4, 1), dtype=np.uint8)


KEY = jax.random.key(3)


def tiny_model(levels=2, **options):
    tiny = dict(layers=1, features=3, head_features=4, first_kernel=3)
    return prnn.ImageModel(*model_and_parameters("pixel_cnn", (4, 4, 1), levels, **tiny, **options))


@pytest.fixture(scope="module")
def model():
    return prnn.create(CONFIG, image_shape=(3, 4, 1), levels=5)


def test_any_batch_size_gives_the_same(model, monkeypatch):
    whole = model.log_prob(IMAGES)
    assert whole.shape == (11,)
    monkeypatch.setattr(image_model, "BATCH_BYTES", 1)  # One image on each of eight devices.
    np.testing.assert_allclose(model.log_prob(IMAGES), whole, rtol=1e-5)
    for size in (0, 1, 3, 4, 5):
        np.testing.assert_allclose(model.log_prob(IMAGES[:size]), whole[:size], rtol=1e-5)
    assert model.conditionals(IMAGES[:0]).shape == (0, 3, 4, 1, 5)


def test_replaced_parameters_are_used():
    model = tiny_model()
    images = np.zeros((1, 4, 4, 1), np.uint8)
    before = model.log_prob(images)
    model.params = jax.tree.map(lambda leaf: 2 * leaf, model.params)
    assert model.log_prob(images) != before


def test_integers_of_any_type_and_units(model):
    nats = model.log_prob(IMAGES)
    for dtype in (np.uint16, np.int32, np.int64):
        np.testing.assert_array_equal(model.log_prob(IMAGES.astype(dtype)), nats)
    np.testing.assert_allclose(model.bits_per_dim(IMAGES), -nats / 12 / np.log(2), rtol=1e-6)


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
    config = prnn.ModelConfig(scales=(1, 2, 4), scale_architectures=architectures, num_classes=3)
    several = repr(prnn.ImageModel(PixelRNN(config, (4, 8, 3), 256), {}))
    assert several.startswith("ImageModel(pixel_cnn and row_lstm, 7 layers, h=16, images 4x8x3 of")
    assert "256 levels, scales (1, 2, 4), given classes from 0 to 2, 0 parameters" in several
    config = prnn.ModelConfig(output="gaussian_mixture", condition_map=2)
    real = repr(prnn.ImageModel(PixelRNN(config, (4, 8, 3)), {}))
    assert real.endswith("images 4x8x3 of real values, given a map for each image, 0 parameters)")


def test_every_method_checks_images_and_conditions():
    """`test_pixel_rnn.py` has all that the two checks refuse."""
    images, known = np.zeros((4, 4, 4, 1), np.uint8), np.ones((4, 4), bool)
    for model, condition, message in [
        (tiny_model(num_classes=3), None, "this model needs a condition, classes from 0 to 2"),
        (tiny_model(), [0, 0, 0, 0], "this model has no condition"),
    ]:
        with pytest.raises(prnn.UserError, match=message):
            model.sample(KEY, 4, condition)
        for call in (model.log_prob, model.conditionals, model.bits_per_dim, model.compress):
            with pytest.raises(prnn.UserError, match=message):
                call(images, condition)
            with pytest.raises(prnn.UserError, match="images must have values from 0 to 1, got 2"):
                call(images + 2, condition)
        with pytest.raises(prnn.UserError, match=message):
            model.complete(KEY, images, known, condition)
        with pytest.raises(prnn.UserError, match="images must have values from 0 to 1, got 2"):
            model.complete(KEY, images + 2, known, condition)


def test_plain_form_refuses_what_needs_a_probability():
    model = tiny_model(scales=(2, 4), copy_coarse=False)
    images = model.sample(KEY, 20)
    assert (model.log_prob(images) < 0).all()
    for refused in (
        model.conditionals,
        model.compress,
        lambda images: model.sample_and_log_prob(KEY, 2),
    ):
        with pytest.raises(
            prnn.UserError, match="plain form .model.copy_coarse=false. gives images no"
        ):
            refused(images)


def test_density_refuses_what_needs_a_probability():
    model = tiny_model(output="logistic_mixture", levels=5)
    images, log_probs = model.sample_and_log_prob(KEY, 3)
    assert images.dtype == np.float32
    np.testing.assert_allclose(model.log_prob(images), log_probs, rtol=1e-4, atol=1e-3)
    for message, refused in [
        ("continuous model gives images no probability", lambda: model.conditionals(images)),
        ("continuous model gives images no probability", lambda: model.compress(images)),
        ("add noise with `dequantize`", lambda: model.log_prob(images.astype(np.uint8))),
        ("finite", lambda: model.log_prob(images * np.inf)),
        (
            "temperature must be 1 for a continuous model",
            lambda: model.sample(KEY, 1, temperature=0.5),
        ),
    ]:
        with pytest.raises(prnn.UserError, match=message):
            refused()


def test_impossible_formats_are_refused():
    with pytest.raises(prnn.UserError, match="levels must be from 2 to 16,777,216, got 1"):
        prnn.create(CONFIG, (3, 4, 1), 1)
    with pytest.raises(prnn.UserError, match=r"image_shape must be \(H, W, C\)"):
        prnn.create(CONFIG, (3, 4), 2)


def test_real_values_have_no_bits_per_dim():
    model = tiny_model(0, output="gaussian_mixture")
    with pytest.raises(prnn.UserError, match="real values have no bits/dim: use log_prob"):
        model.bits_per_dim(np.zeros((1, 4, 4, 1), np.float32))


def test_importing_changes_no_setting():
    program = """if True:
        import jax
        before = dict(jax.config.values)
        import pixel_rnn_jax
        assert pixel_rnn_jax.ImageModel  # What is imported when it is used.
        assert dict(jax.config.values) == before
    """
    programs.run(sys.executable, "-c", program)


def test_load_refuses_what_is_no_workdir(tmp_path):
    with pytest.raises(prnn.UserError, match="holds no training run"):
        prnn.load(tmp_path)


def test_more_images_than_memory_holds_are_refused_before_any_work():
    model = tiny_model()
    with pytest.raises(
        prnn.UserError, match=r"images take [\d,]+ GiB, this machine has [\d,]+: dr"
    ):
        model.sample(jax.random.key(0), np.int64(10**12))
    assert len(model.sample(jax.random.key(0), np.uint8(2))) == 2
