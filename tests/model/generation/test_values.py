"""The one loop over values: its order, and that it computes what networks do on whole images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import (
    ARCHITECTURES,
    model_and_parameters,
    random_batch,
    whole_map_outputs,
)

from pixel_rnn_jax.model.generation.values import for_each_value
from pixel_rnn_jax.model.network import Network


def decode_known(model, params, images, condition=None, end_pixel=None):
    """Decodes images that are known, and records by scale and place what the loop hands out.

    These are the outputs, how many values came before, and whether the scale before gives the
    value; where it does, `choose` returns another one.
    """
    lanes, images = len(images), jnp.asarray(images)
    start = {"count": 0}
    for scale in model.scales:
        shape = scale.network.image_shape
        outputs = jnp.zeros((lanes, *shape, model.likelihood.outputs))
        flags = jnp.zeros(shape, bool)
        start[scale.name] = {"outputs": outputs, "before": jnp.zeros(shape, int), "given": flags}

    def choose(carry, outputs, place):
        scale, at = model.scales[place.scale], (place.row, place.column, place.channel)
        maps = carry[scale.name]
        maps = {
            "outputs": maps["outputs"].at[:, *at].set(outputs),
            "before": maps["before"].at[at].set(carry["count"]),
            "given": maps["given"].at[at].set(place.copied),
        }
        known = scale.subsample(images)[:, *at]
        values = jnp.where(place.copied, (known + 1) % model.levels, known)
        return carry | {"count": carry["count"] + 1, scale.name: maps}, values

    options = dict(lanes=lanes, condition=condition, end_pixel=end_pixel)
    image, carry = for_each_value(model.scales, params, choose, start, **options)
    return image, [carry[scale.name] for scale in model.scales]


def check(architecture, image_shape, levels, dtype="float64", **options):
    """Asserts that the loop's images and outputs are the known ones and the whole map's."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        options |= dict(dtype=dtype)
        model, params = model_and_parameters(architecture, image_shape, levels, **options)
        images, condition = random_batch(model, 3)

        @jax.jit
        def both(params):
            whole = whole_map_outputs(model, params, images, condition)
            return decode_known(model, params, images, condition), whole

        (image, maps), whole = both(params)
    np.testing.assert_array_equal(image, images)
    for of_scale, expected in zip(maps, whole, strict=True):
        assert of_scale["outputs"].dtype == expected.dtype == dtype
        tolerance = 1e-9 if dtype == "float64" else 1e-4
        np.testing.assert_allclose(of_scale["outputs"], expected, atol=tolerance, rtol=0)
    return model, maps


def test_order_is_by_scale_row_column_and_channel():
    """Values that a smaller image gives are passed as well, and stay what it gives."""
    model, maps = check("pixel_cnn", (4, 6, 3), 4, scales=(2, 4), condition_map=2, layers=1)
    count = 0
    for scale, of_scale in zip(model.scales, maps, strict=True):
        shape = scale.network.image_shape
        order = count + np.arange(np.prod(shape)).reshape(shape)
        np.testing.assert_array_equal(of_scale["before"], order)
        given = np.broadcast_to(scale.copied[..., None], shape)
        np.testing.assert_array_equal(of_scale["given"], given)
        count += order.size
    assert count == 2 * 3 * 3 + 4 * 6 * 3 and given[::2, ::2].all()


def test_end_pixel_may_replace_lanes(x64):
    options = dict(scales=(2, 4), num_classes=3, layers=1, dtype="float64")
    model, params = model_and_parameters("row_lstm", (4, 6, 3), 4, **options)
    images, _ = random_batch(model, 3)
    condition, lanes = np.full(3, 2), np.array([2, 0, 0])

    def end_pixel(carry, state, place):
        assert place.channel == 2
        here = (place.scale == 1) & (place.row == 1) & (place.column == 3)
        sources = jnp.where(here, lanes, jnp.arange(3))
        return carry, jax.tree.map(lambda leaf: leaf[sources], state)

    # Values up to that pixel are of other lanes, later ones are each lane's own.
    expected = images.copy()
    expected[:, ::2, ::2] = images[lanes][:, ::2, ::2]
    before = np.arange(24).reshape(4, 6) <= 1 * 6 + 3
    expected[:, before] = images[lanes][:, before]

    @jax.jit
    def both(params):
        whole = whole_map_outputs(model, params, expected, condition)
        return decode_known(model, params, images, condition, end_pixel), whole

    (image, maps), whole = both(params)
    np.testing.assert_array_equal(image, expected)
    outputs, whole = maps[1]["outputs"], whole[1]
    np.testing.assert_allclose(outputs[:, ~before], whole[:, ~before], atol=1e-9)
    assert np.abs(outputs - whole)[:, before].max() > 0.01  # Of the lanes as they were.


MIXTURE = dict(output="discretized_logistic_mixture", mixtures=2)
COUPLED = dict(output="coupled_logistic_mixture", mixtures=2)
PLAIN = dict(residual=False, skip=False)
QUICK = [
    ("pixel_cnn", (4, 8, 1), 4, dict(scales=(2, 4), copy_coarse=False, layers=1) | MIXTURE),
    ("row_lstm", (2, 4, 3), 17, dict(scales=(1, 2), num_classes=3, layers=1) | PLAIN | MIXTURE),
    ("diagonal_bilstm", (3, 4, 2), 3, dict(input="categorical", condition_vector=3)),
    ("diagonal_bilstm", (3, 1, 1), 2, dict(dtype="float32", layers=1)),
]
SLOW = [
    ("row_lstm", (2, 4, 3), 17, dict(scales=(1, 2), layers=1) | COUPLED),
    ("pixel_cnn", (3, 6, 2), 3, dict(kernel=5, num_classes=3)),
    ("row_lstm", (3, 6, 2), 3, dict(kernel=5, first_kernel=7, condition_map=2)),
    ("row_lstm", (4, 8, 3), 4, dict(scales=(1, 4), scale_architectures=("linear_rnn", "row_lstm"))),
] + [
    (architecture, (4, 8, 3), 4, options)
    for architecture in ARCHITECTURES
    for options in (
        PLAIN,
        dict(dtype="float32", num_classes=3),
        dict(input="categorical", condition_vector=3),
        dict(scales=(1, 2, 4), condition_map=2),
    )
]


@pytest.mark.parametrize(
    ("architecture", "image_shape", "levels", "options"),
    QUICK + [pytest.param(*case, marks=pytest.mark.slow) for case in SLOW],
)
def test_outputs_are_those_of_the_whole_map(architecture, image_shape, levels, options):
    check(architecture, image_shape, levels, **options)


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_operands_are_rounded_as_in_the_whole_map(architecture, monkeypatch):
    """With sums in float64, both forms round the same numbers: a bias, a state, an input."""
    monkeypatch.setattr(Network, "param_dtype", property(lambda self: jnp.dtype("float64")))
    options = dict(dtype="bfloat16", num_classes=2)
    with jax.enable_x64(True):
        model, params = model_and_parameters(architecture, (3, 4, 2), 5, **options)
        images, condition = random_batch(model, 3)
        (whole,) = jax.jit(lambda p: whole_map_outputs(model, p, images, condition))(params)
        _, (of_scale,) = jax.jit(lambda p: decode_known(model, p, images, condition))(params)
    np.testing.assert_allclose(of_scale["outputs"], whole, rtol=0, atol=1e-9)
