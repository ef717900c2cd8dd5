"""The Python API: batches of any size, and errors for what does not fit."""

import dataclasses
import itertools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import programs
from helpers.random_models import tiny_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.system import tuning

CONFIG = prnn.ModelConfig("row_lstm", layers=1, features=3, head_features=4)
IMAGES = np.random.default_rng(0).integers(5, size=(11, 3, 4, 1), dtype=np.uint8)
KEY, SHAPE = jax.random.key(3), (2, 4, 4, 1)


@pytest.fixture(scope="module")
def model():
    return prnn.create(CONFIG, image_shape=(3, 4, 1), levels=5)


@pytest.mark.slow
def test_any_batch_size_gives_the_same(model, monkeypatch):
    whole = model.log_prob(IMAGES)
    assert whole.shape == (11,)
    monkeypatch.setattr(tuning, "BATCH_BYTES", 1)  # One image on each of eight devices.
    for size in (0, 1, 3, 4, 5, 11):
        np.testing.assert_allclose(model.log_prob(IMAGES[:size]), whole[:size], rtol=1e-5)
    assert model.conditionals(IMAGES[:0]).shape == (0, 3, 4, 1, 5)


def test_integers_of_any_type_seeds_and_units(model):
    nats = model.log_prob(IMAGES)
    np.testing.assert_array_equal(model.log_prob(IMAGES.astype(np.int64)), nats)
    np.testing.assert_allclose(model.bits_per_dim(IMAGES), -nats / 12 / np.log(2), rtol=1e-6)
    again = prnn.create(CONFIG, (3, 4, 1), 5)
    np.testing.assert_array_equal(again.log_prob(IMAGES), nats)
    assert (prnn.create(CONFIG, (3, 4, 1), 5, seed=1).log_prob(IMAGES) != nats).all()


def test_what_cannot_be_traced_names_the_pure_function(model):
    known = np.ones((3, 4), bool)
    calls = (
        lambda key: model.sample(key, 2),
        lambda key: model.sample(KEY, 2),
        lambda key: model.sample_and_log_prob(key, 2),
        lambda key: model.complete(key, IMAGES[:2], known),
    )
    for call in calls:
        with pytest.raises(prnn.UserError, match=r"model\.pixel_rnn.*model\.params"):
            jax.jit(call)(KEY)
    np.testing.assert_allclose(jax.jit(model.log_prob)(IMAGES), model.log_prob(IMAGES), rtol=1e-5)


def test_foreign_parameters_are_named(model):
    deeper = dataclasses.replace(model.config, layers=model.config.layers + 1)
    deeper = prnn.create(deeper, model.image_shape, model.levels)
    for wrong in ({}, {"params": model.params}, deeper.params):
        with pytest.raises(prnn.UserError, match="scale_0"):
            model.pixel_rnn.log_prob(wrong, IMAGES)


@pytest.mark.parametrize("array", [np.array, jnp.array])
def test_parameters_that_change_in_place_are_those_used(model, array):
    params = jax.tree.map(array, model.params)
    own = prnn.ImageModel(model.pixel_rnn, params)
    before = own.log_prob(IMAGES)
    params["scale_0"]["first"]["kernel"] += 1  # In NumPy's array, or as another array.
    assert not np.allclose(own.log_prob(IMAGES), before)
    np.testing.assert_array_equal(model.log_prob(IMAGES), before)


def test_plain_form_and_densities_refuse_what_needs_a_probability():
    random = np.random.default_rng(0)
    plain, images = tiny_model(scales=(2, 4), copy_coarse=False), random.integers(3, size=SHAPE)
    density, values = tiny_model(output="logistic_mixture", levels=5), 5 * random.random(SHAPE)
    real = tiny_model(levels=0, output="gaussian_mixture")
    for call in (
        lambda: plain.conditionals(images),
        lambda: plain.compress(images),
        lambda: plain.sample_and_log_prob(KEY, 2),
        lambda: density.conditionals(values),
        lambda: density.compress(values),
        lambda: real.bits_per_dim(np.zeros((1, 4, 4, 1), np.float32)),
    ):
        with pytest.raises(prnn.UserError):
            call()


def test_importing_changes_no_setting():
    program = """if True:
        import jax
        before = dict(jax.config.values)
        import pixel_rnn_jax
        assert pixel_rnn_jax.ImageModel  # What is imported when it is used.
        assert dict(jax.config.values) == before
    """
    programs.run(sys.executable, "-c", program)


def test_load_refuses_what_is_no_model(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, Path("digits")):  # Only a string is the name of a model.
        with pytest.raises(prnn.UserError, match=path.name):
            prnn.load(path)


def test_a_seed_is_no_key(model):
    assert model.sample(jax.random.PRNGKey(0), 1).shape == (1, 3, 4, 1)
    known = np.ones((3, 4), bool)
    calls = (
        lambda key: model.sample(key, 2),
        lambda key: model.sample_and_log_prob(key, 2),
        lambda key: model.complete(key, IMAGES, known),
        model.pixel_rnn.init,
    )
    for call, seed in itertools.product(calls, (0, np.int64(3))):
        with pytest.raises(prnn.UserError, match="key"):
            call(seed)
