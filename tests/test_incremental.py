"""The incremental form computes what the whole map does, pixel by pixel."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_masks import ARCHITECTURES, random_like

from pixel_rnn_jax import joint, models, sample
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.images import Batch


def model_and_parameters(architecture, image_shape, levels, *, seed=0, **options):
    config = ModelConfig(
        architecture,
        **{"layers": 2, "features": 5, "head_features": 6, "first_kernel": 5} | options,
    )
    model = models.create(config, image_shape, levels)
    shapes = jax.eval_shape(lambda: joint.init_parameters(model, jax.random.key(0)))
    return model, random_like(shapes, seed)


def whole_map(model, params, images, labels=None):
    terms = jax.jit(lambda params, batch: joint.log_prob(model, params, batch))
    return np.asarray(terms(params, Batch(images, labels)))


def check_log_probs(model, params, tolerance):
    """Teacher-forced on any images, and on those that it draws."""
    random = np.random.default_rng(1)
    images = random.integers(model.levels, size=(3, *model.image_shape))
    labels = random.integers(model.config.classes, size=3) if model.config.classes else None
    nothing = np.zeros(images.shape, bool)
    key = jax.random.key(0)
    same, forced = sample.in_lanes(model, params, key, images, ~nothing, labels=labels)
    np.testing.assert_array_equal(same, images)
    expected = whole_map(model, params, images, labels)
    np.testing.assert_allclose(forced, expected, atol=tolerance, rtol=0)
    drawn, log_probs = sample.in_lanes(model, params, key, images, nothing, labels=labels)
    assert (drawn != images).any()
    expected = whole_map(model, params, drawn, labels)
    np.testing.assert_allclose(log_probs, expected, atol=tolerance, rtol=0)


SHAPES = [(4, 7), (6, 3), (1, 4), (5, 1)]
PRODUCT = list(itertools.product((1, 3, 4), (2, 17, 256), (True, False), (True, False)))
FEW = [(1, 2, True, True), (3, 17, False, False)]
CASES = [pytest.param(*case, marks=() if case in FEW else pytest.mark.slow) for case in PRODUCT]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("channels", "levels", "residual", "skip"), CASES)
def test_float64(x64, architecture, channels, levels, residual, skip):
    options = dict(residual=residual, skip=skip, dtype="float64")
    shape = SHAPES[PRODUCT.index((channels, levels, residual, skip)) % len(SHAPES)]
    check_log_probs(
        *model_and_parameters(architecture, (*shape, channels), levels, **options), 1e-9
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("channels", "levels"),
    [
        pytest.param(*case, marks=() if case == (1, 2) else pytest.mark.slow)
        for case in itertools.product((1, 3, 4), (2, 17, 256))
    ],
)
def test_float32(architecture, channels, levels):
    with jax.default_matmul_precision("highest"):
        check_log_probs(*model_and_parameters(architecture, (6, 5, channels), levels), 1e-4)


CONDITIONS = [
    ("row_lstm", dict(scales=(2, 4, 8))),
    ("diagonal_bilstm", dict(scales=(4, 8), classes=3)),
    ("pixel_cnn", dict(scales=(4, 8), output="logistic", mixtures=3)),
    ("row_lstm", dict(scales=(2, 8), scale_architectures=("pixel_cnn", "diagonal_bilstm"))),
    ("diagonal_bilstm", dict(classes=3)),
    ("diagonal_bilstm", dict(scales=(2, 4, 8))),
    ("pixel_cnn", dict(scales=(2, 4, 8), classes=3)),
    ("row_lstm", dict(scales=(2, 8), output="logistic", mixtures=2)),
    ("row_lstm", dict(classes=3)),
    ("pixel_cnn", dict(classes=3)),
]


@pytest.mark.parametrize(
    ("architecture", "options", "channels", "levels"),
    [
        pytest.param(*case, 3, 4, marks=() if number < 3 else pytest.mark.slow)
        for number, case in enumerate(CONDITIONS)
    ]
    + [pytest.param(*case, 1, 2, marks=pytest.mark.slow) for case in CONDITIONS],
)
def test_scales_and_classes(x64, architecture, options, channels, levels):
    """Heights of 8 and widths of 12, in float64."""
    arguments = architecture, (8, 12, channels), levels
    check_log_probs(*model_and_parameters(*arguments, dtype="float64", **options), 1e-9)


@pytest.mark.parametrize("kernel", [5, pytest.param(7, marks=pytest.mark.slow)])
def test_wider_kernels(x64, kernel):
    for architecture in ("pixel_cnn", "row_lstm"):
        options = dict(kernel=kernel, first_kernel=7, dtype="float64")
        check_log_probs(*model_and_parameters(architecture, (7, 6, 2), 3, **options), 1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_sampling_gives_the_images_of_one_full_pass_a_value(x64, architecture, channels):
    model, params = model_and_parameters(architecture, (4, 5, channels), 4, dtype="float64")
    key = jax.random.key(3)
    drawn, _ = sample.in_lanes(
        model, params, key, np.zeros((6, 4, 5, channels), int), np.zeros((6, 4, 5, channels), bool)
    )
    logits = jax.jit(lambda params, x: joint.outputs(model, params, Batch(x))[0])
    uniforms = sample.value_uniforms(key, jnp.arange(6), 0, model.image_shape)
    images = np.zeros((6, *model.image_shape), int)
    for value in itertools.product(*map(range, model.image_shape)):
        here = (slice(None), *value)
        images[here] = model.likelihood.draw(logits(params, images)[here], uniforms[here], 1.0)
    np.testing.assert_array_equal(drawn, images)
    assert len(np.unique(images.reshape(6, -1), axis=0)) > 2


@pytest.mark.parametrize(
    "architecture",
    ["row_lstm", *(pytest.param(a, marks=pytest.mark.slow) for a in ARCHITECTURES[::2])],
)
def test_sampling_of_scales_gives_the_images_of_one_full_pass_a_value(x64, architecture):
    shape = (4, 6, 2)
    model, params = model_and_parameters(
        architecture, shape, 3, dtype="float64", scales=(2, 4), classes=2
    )
    key, labels = jax.random.key(3), np.array([0, 1, 1, 0, 1])
    nothing = np.zeros((5, *shape), bool)
    drawn, _ = sample.in_lanes(model, params, key, nothing.astype(int), nothing, labels=labels)
    outputs = jax.jit(lambda params, batch: joint.outputs(model, params, batch))
    images = np.zeros((5, *shape), int)
    for number, scale in enumerate(models.scales(model)):
        uniforms = sample.value_uniforms(key, jnp.arange(5), number, scale.network.image_shape)
        own = scale.subsample(images)  # A view: what is drawn lands in the whole image.
        for r, c, channel in np.ndindex(scale.network.image_shape):
            if not scale.given[r, c]:
                here = (slice(None), r, c, channel)
                found = outputs(params, Batch(images, labels))[number][here]
                own[here] = model.likelihood.draw(found, uniforms[here], 1.0)
    np.testing.assert_array_equal(drawn, images)
