"""`docs/weights.md` says enough of an exported file to compute the network without this package."""

import jax
import numpy as np
import pytest
from helpers.exported_network import ExportedNetwork
from helpers.random_models import model_and_parameters, random_batch, whole_map_outputs

import pixel_rnn_jax as prnn

DISCRETIZED = dict(output="discretized_logistic_mixture", mixtures=2)
UNITS = dict(mean=(20.0, 19.0), std=(5.0, 4.0))


@pytest.mark.parametrize(
    ("architecture", "shape", "levels", "options"),
    [
        ("pixel_cnn", (4, 5, 2), 3, dict(num_classes=3, kernel=5, first_kernel=3)),
        ("row_lstm", (4, 5, 2), 3, dict(condition_vector=2)),
        ("diagonal_bilstm", (4, 5, 2), 3, dict(condition_map=2, residual=False)),
        ("linear_rnn", (4, 5, 2), 3, dict(condition_map=2)),
        ("gated_pixel_cnn", (4, 5, 2), 3, dict(condition_map=2)),
        ("row_lstm", (4, 5, 2), 3, dict(input="categorical", skip=False, **DISCRETIZED)),
        # With one channel the first kernel has no rows for the pixel itself.
        ("diagonal_bilstm", (3, 4, 1), 2, dict(layers=1)),
        # Of a ratio of 2 times 3.
        ("pixel_cnn", (6, 6, 1), 3, dict(scales=(1, 6), layers=1)),
        ("pixel_cnn", (4, 5, 2), 0, dict(output="gaussian_mixture", layers=1, units=UNITS)),
    ],
    ids=str,
)
def test_outputs_of_every_scale(tmp_path, architecture, shape, levels, options):
    model, params = model_and_parameters(architecture, shape, levels, **options)
    prnn.ImageModel(model, params).save(tmp_path / "model.safetensors")
    images, condition = random_batch(model, 3)
    compiled = jax.jit(lambda *arguments: whole_map_outputs(model, *arguments))
    expected = compiled(params, model._standardised(images), condition)
    coarse = None
    for number, (scale, outputs) in enumerate(zip(model.scales, expected, strict=True)):
        image = images[2, :: scale.stride, :: scale.stride]
        network = ExportedNetwork(tmp_path / "model.safetensors", number)
        computed = network.outputs(image, None if condition is None else condition[2], coarse)
        np.testing.assert_allclose(computed, outputs[2], rtol=1e-4, atol=1e-4)
        coarse = image
