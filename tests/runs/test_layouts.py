"""`docs/weights.md` says enough of an exported file to compute the network without this package."""

import jax
import numpy as np
import pytest
from exported_network import ExportedNetwork
from random_models import ARCHITECTURES, model_and_parameters, whole_map_outputs

import pixel_rnn_jax as prnn

RANDOM = np.random.default_rng(0)
CONDITIONS = {
    "label": ({"num_classes": 3}, 2),
    "vector": ({"condition_vector": 2}, RANDOM.normal(size=2).astype(np.float32)),
    "map_": ({"condition_map": 2}, RANDOM.normal(size=(4, 6, 2)).astype(np.float32)),
}


def check(tmp_path, architecture, shape, levels, image, condition=None, **options):
    """Compares the outputs of each scale; `condition` is a name and a value."""
    model = prnn.ImageModel(*model_and_parameters(architecture, shape, levels, **options))
    model.save(tmp_path / "model.safetensors")
    name, value = condition or (None, None)
    batch = None if name is None else np.array([value])
    expected = outputs_of(model, image[None], batch)
    coarse = None
    for number, (scale, outputs) in enumerate(zip(model.pixel_rnn.scales, expected, strict=True)):
        own = image[:: scale.stride, :: scale.stride]
        given = {name: value} if name else {}
        network = ExportedNetwork(tmp_path / "model.safetensors", number)
        found = network.outputs(own, coarse=coarse, **given)
        np.testing.assert_allclose(found, outputs[0], rtol=1e-4, atol=1e-4)
        coarse = own


def outputs_of(model, images, condition=None):
    compiled = jax.jit(lambda *args: whole_map_outputs(model.pixel_rnn, *args))
    return compiled(model.params, images, condition)


def random_image(shape, levels):
    return RANDOM.integers(levels, size=shape)


@pytest.mark.parametrize("architecture, condition", [*zip(ARCHITECTURES, CONDITIONS, strict=True)])
def test_architectures_and_conditions(tmp_path, architecture, condition):
    options, value = CONDITIONS[condition]
    image = random_image((4, 6, 2), 3)
    check(tmp_path, architecture, (4, 6, 2), 3, image, (condition, value), **options)


@pytest.mark.parametrize(
    "options",
    [
        dict(input="categorical", output="discretized_logistic_mixture", mixtures=2, skip=False),
        dict(residual=False, kernel=5, first_kernel=3),
    ],
    ids=str,
)
def test_other_fields(tmp_path, options):
    check(tmp_path, "row_lstm", (4, 6, 2), 3, random_image((4, 6, 2), 3), **options)


@pytest.mark.parametrize("channels", [1, 3])
def test_channels(tmp_path, channels):
    """With one channel the first kernel has no rows for the pixel itself."""
    image = random_image((3, 4, channels), 2)
    check(tmp_path, "diagonal_bilstm", (3, 4, channels), 2, image, layers=1)


@pytest.mark.parametrize("input_", ["scalar", "categorical"])
def test_scales(tmp_path, input_):
    """Of a ratio of 2 times 3."""
    image = random_image((6, 6, 1), 3)
    check(tmp_path, "pixel_cnn", (6, 6, 1), 3, image, scales=(1, 6), input=input_, layers=1)


def test_real_values(tmp_path):
    image = RANDOM.normal(20, 5, size=(4, 6, 2)).astype(np.float32)
    units = dict(offset=(20.0, 19.0), scale=(5.0, 4.0))
    model = prnn.ImageModel(
        *model_and_parameters("pixel_cnn", (4, 6, 2), 0, output="gaussian_mixture", units=units)
    )
    path = tmp_path / "model.safetensors"
    model.save(path)
    values = (image - np.array(units["offset"])) / np.array(units["scale"])
    expected = outputs_of(model, values[None].astype(np.float32))
    found = ExportedNetwork(path).outputs(image)
    np.testing.assert_allclose(found, expected[0][0], rtol=1e-4, atol=1e-4)
