"""Compression by models with several scales, with classes, or both."""

import jax
import numpy as np
import pytest
from random_models import model_and_parameters, with_large_conditions

import pixel_rnn_jax as prnn


@pytest.mark.parametrize(
    "options",
    [
        dict(scales=(2, 4), classes=3, output="logistic", mixtures=3),
        pytest.param(dict(scales=(1, 2, 4)), marks=pytest.mark.slow),
        pytest.param(dict(classes=3), marks=pytest.mark.slow),
    ],
)
def test_codec_returns_images_and_classes_and_takes_their_negative_log_probability(options):
    tiny = dict(layers=1, features=3, head_features=4, first_kernel=3)
    model, params = model_and_parameters("pixel_cnn", (4, 6, 2), 5, **tiny, **options)
    model = prnn.ImageModel(model, with_large_conditions(params))
    count = 200
    labels = np.random.default_rng(0).integers(3, size=count) if "classes" in options else None
    images = model.sample(jax.random.key(3), count, labels)
    data = model.compress(images, labels)
    decoded, found = model.decompress(data, return_labels=True)
    np.testing.assert_array_equal(decoded, images)
    if labels is None:
        assert found is None
    else:
        np.testing.assert_array_equal(found, labels)
        # What is of another class takes more, since the class is made use of.
        assert len(model.compress(images, (labels + 1) % 3)) > len(data) + 12
    bits = -model.log_prob(images, labels).sum() / np.log(2)
    bits += count * np.log2(3) if labels is not None else 0
    assert 0 < len(data) - bits / 8 < 200 + 0.005 * bits / 8
