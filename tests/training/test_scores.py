"""Scores of single images and values, against the model itself."""

import math

import jax
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.training.scores import score


def test_scores_of_several_scales(tmp_path):
    """In the plain form, in which a value may have the terms of several scales."""
    images = np.random.default_rng(0).integers(3, size=(11, 4, 4, 1), dtype=np.uint8)
    np.save(tmp_path / "own.npy", images)
    small = {"layers": 1, "features": 2, "first_kernel": 3, "head_features": 3}
    config = prnn.ModelConfig("pixel_cnn", scales=(2, 4), copy_coarse=False, **small)
    model = prnn.create(config, (4, 4, 1), 3)
    source = data.open_source(
        prnn.Config(config, prnn.DataConfig(str(tmp_path / "own.npy"), levels=3)), "all"
    )
    expected = -np.asarray(model.log_prob(images, per_value=True))
    shares = jax.jit(model.pixel_rnn.nats_by_scale)(model.params, images)
    shares = np.asarray(shares).mean(0)
    for per_value in False, True:
        found = score(
            model.pixel_rnn, model.params, source, batch_size=8, step=5, per_value=per_value
        )
        np.testing.assert_allclose(found.nats, expected.sum(axis=(1, 2, 3)), rtol=1e-5)
        assert found.evaluation.shares == pytest.approx({2: shares[0], 4: shares[1]}, rel=1e-5)
    np.testing.assert_allclose(found.nats_per_value, expected, rtol=1e-4, atol=1e-6)
    arrays = found.arrays(source.record_names())
    np.testing.assert_allclose(arrays["bits_per_dim"], found.nats / 16 / math.log(2))


def test_real_values_have_no_bits(tmp_path):
    np.save(tmp_path / "own.npy", np.random.default_rng(0).normal(size=(3, 2, 2, 1)))
    config = prnn.ModelConfig("pixel_cnn", layers=1, features=1, output="gaussian_mixture")
    model = prnn.create(config, (2, 2, 1))
    config = prnn.Config(config, prnn.DataConfig(str(tmp_path / "own.npy")))
    source = data.open_source(config, "all")
    assert score(model.pixel_rnn, model.params, source).arrays(source.record_names()).keys() == {
        "nats",
        "names",
    }
