"""Images of other sizes than the training's, and pictures as grids of parts."""

import functools

import jax
import numpy as np
import pytest
from helpers.random_models import ARCHITECTURES, all_images, model_and_parameters

import pixel_rnn_jax as prnn
from pixel_rnn_jax.model import parts

KEY = jax.random.key(0)
SIZES = (1, 1), (1, 4), (3, 2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_probabilities_of_all_images_of_another_size_add_up_to_one(architecture):
    model, params = model_and_parameters(architecture, (5, 5, 1), 2, num_classes=2)
    for size in SIZES:
        log_prob = jax.jit(model.log_prob)(params, all_images((*size, 1), 2), 1)
        assert np.exp(log_prob).sum() == pytest.approx(1, rel=1e-5)
        draw = jax.jit(functools.partial(model.sample_and_log_prob, n=3, size=size))
        drawn, drawn_log_prob = draw(params, KEY, condition=np.ones(3, int))
        rows = np.asarray(drawn).reshape(3, -1) @ 2 ** np.arange(size[0] * size[1])[::-1]
        np.testing.assert_allclose(drawn_log_prob, log_prob[rows], rtol=1e-4)


def test_scales_and_a_total_fit_multiples_and_one_size():
    config = prnn.ModelConfig("pixel_cnn", layers=1, features=4, scales=(2, 4))
    model = prnn.PixelRNN(config, (4, 4, 1), 2)
    params = jax.jit(model.init)(KEY)
    log_prob = jax.jit(model.log_prob)(params, all_images((2, 4, 1), 2))
    assert np.exp(log_prob).sum() == pytest.approx(1, rel=1e-5)
    assert model.sized(2, 6).config.scales == (1, 2)
    with pytest.raises(prnn.UserError, match="multiples of 2"):
        model.log_prob(params, np.zeros((1, 3, 4, 1), int))
    total = prnn.PixelRNN(prnn.ModelConfig(layers=1, features=4, total=8), (4, 4, 1), 2)
    with pytest.raises(prnn.UserError, match=r"model\.total"):
        total.sample(params, KEY, 1, size=(2, 2))


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 16), (40, 7), (33, 50)])
@pytest.mark.parametrize("stride", [1, 4])
def test_parts_cover_a_picture_once_and_are_as_equal_as_can_be(size, stride):
    size = tuple(stride * length for length in size)
    seen = np.zeros(size, int)
    shapes = parts.grids([size], 16 * stride, stride)
    for shape, places in shapes.items():
        for part in places:
            part.of(seen)[...] += 1
            assert part.of(seen).shape == shape and max(shape) <= 16 * stride
            assert part.top % stride == part.left % stride == 0
    assert (seen == 1).all()
    for side in zip(*shapes, strict=True):
        assert max(side) - min(side) <= stride
    assert parts.default_side(32, 32) == 64 and parts.default_side(28, 20) == 64


def test_a_large_picture_is_the_product_of_its_parts():
    model = prnn.create(
        prnn.ModelConfig("pixel_cnn", layers=1, features=4, condition_map=2), (4, 4, 1), 3
    )
    assert model.part == 8
    rng = np.random.default_rng(0)
    images, maps = rng.integers(3, size=(2, 9, 17, 1)), rng.normal(size=(2, 9, 17, 2))
    params = model.params
    of_values = jax.jit(functools.partial(model.pixel_rnn.log_prob, per_value=True))
    expected = np.zeros((2, 9, 17, 1))
    for rows in (slice(0, 5), slice(5, 9)):
        for columns in (slice(0, 6), slice(6, 12), slice(12, 17)):
            part = images[:, rows, columns], maps[:, rows, columns]
            expected[:, rows, columns] = of_values(params, *part)
    per_value = model.log_prob(images, maps, per_value=True)
    np.testing.assert_allclose(per_value, expected, atol=1e-5)
    log_prob = model.log_prob(images, maps)
    np.testing.assert_allclose(log_prob, expected.sum((1, 2, 3)), rtol=1e-5)
    levels = np.take_along_axis(
        np.asarray(model.conditionals(images, maps)), images[..., None], axis=-1
    )
    np.testing.assert_allclose(levels[..., 0], expected, atol=1e-5)
    bits = model.bits_per_dim(images, maps)
    np.testing.assert_allclose(bits, -log_prob / np.log(2) / images[0].size, rtol=1e-6)

    # The unknown corner lies in the last part: the evidence is of that part alone.
    known = np.ones((9, 17), bool)
    known[8, 14:] = False
    result = model.complete(KEY, images, known, maps)
    alone = of_values(params, images[:, 5:, 12:], maps[:, 5:, 12:])
    evidence = np.asarray(alone)[:, known[5:, 12:]].sum((1, 2))
    np.testing.assert_allclose(result.log_evidence, evidence, rtol=1e-5)
    changed = (np.asarray(result.images) != images).any(0)[..., 0]
    assert not changed[known].any()
