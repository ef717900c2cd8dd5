"""Compression by models with several scales, with classes, or both."""

import jax
import numpy as np
import pytest
from random_models import model_and_parameters, with_large_conditions

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import coder


@pytest.mark.parametrize(
    "options",
    [
        dict(scales=(2, 4), classes=3, output="logistic", mixtures=3),
        pytest.param(dict(scales=(1, 2, 4)), marks=pytest.mark.slow),
        pytest.param(dict(classes=3), marks=pytest.mark.slow),
    ],
)
def test_codec_returns_images_and_classes_and_takes_their_negative_log_probability(
    monkeypatch, options
):
    monkeypatch.setattr(coder, "LANES", 200)
    tiny = dict(layers=1, features=3, head_features=4, first_kernel=3)
    model, params = model_and_parameters("pixel_cnn", (4, 8, 2), 5, **tiny, **options)
    model = prnn.ImageModel(model, with_large_conditions(params))
    classes = model.config.classes
    labels = np.random.default_rng(0).integers(classes, size=200) if classes else None
    images = model.sample(jax.random.key(3), 200, labels)
    found_sizes, sizes = [], []
    for own in [labels, (labels + 1) % classes] if classes else [None]:
        data = model.compress(images, own)
        decoded, found = model.decompress(data, return_labels=True)
        np.testing.assert_array_equal(decoded, images)
        np.testing.assert_array_equal(found, own)
        found_sizes.append(len(data))
        sizes.append(-model.log_prob(images, own).sum() / np.log(2) / 8)
        sizes[-1] += 200 * np.log2(classes) / 8 if classes else 0
        assert 0 < len(data) - sizes[-1] < 200 + 0.005 * sizes[-1]
    if classes:  # A model that makes use of the class.
        assert np.diff(sizes) > 8
        np.testing.assert_allclose(np.diff(found_sizes), np.diff(sizes), atol=6)
