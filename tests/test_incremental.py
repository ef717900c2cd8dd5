"""The incremental form computes what the whole map does, pixel by pixel."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_masks import ARCHITECTURES, random_parameters

from pixel_rnn_jax import evaluate, likelihoods, sample
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.models.pixel_rnn import PixelRNN


def model_and_parameters(architecture, image_shape, levels, *, seed=0, **options):
    config = ModelConfig(
        architecture,
        **{"layers": 2, "features": 5, "head_features": 6, "first_kernel": 5} | options,
    )
    model = PixelRNN(config, image_shape, levels)
    return model, random_parameters(model, image_shape, seed)


def whole_map(model, params, images):
    logits = jax.jit(lambda params, x: evaluate.logits(model, params, x))(params, images)
    return np.asarray(likelihoods.log_prob(logits, jnp.asarray(images)))


def check_log_probs(model, params, tolerance):
    """Teacher-forced on any images, and on those that it draws."""
    images = np.random.default_rng(1).integers(model.levels, size=(3, *model.image_shape))
    nothing = np.zeros(images.shape, bool)
    key = jax.random.key(0)
    same, forced = sample.in_lanes(model, params, key, images, ~nothing)
    np.testing.assert_array_equal(same, images)
    np.testing.assert_allclose(forced, whole_map(model, params, images), atol=tolerance, rtol=0)
    drawn, log_probs = sample.in_lanes(model, params, key, images, nothing)
    assert (drawn != images).any()
    np.testing.assert_allclose(log_probs, whole_map(model, params, drawn), atol=tolerance, rtol=0)


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
    ("channels", "levels"), [(1, 2), pytest.param(3, 256, marks=pytest.mark.slow)]
)
def test_float32(architecture, channels, levels):
    with jax.default_matmul_precision("highest"):
        check_log_probs(*model_and_parameters(architecture, (6, 5, channels), levels), 1e-4)


@pytest.mark.parametrize("kernel", [5, pytest.param(7, marks=pytest.mark.slow)])
def test_wider_kernels(x64, kernel):
    for architecture in ("pixel_cnn", "row_lstm"):
        options = dict(kernel=kernel, first_kernel=7, dtype="float64")
        check_log_probs(*model_and_parameters(architecture, (7, 6, 2), 3, **options), 1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_context(x64, architecture):
    model, params = model_and_parameters(architecture, (4, 5, 2), 3, dtype="float64")
    width = 5 if architecture == "pixel_cnn" else 20
    random = np.random.default_rng(0)
    inputs = jnp.asarray(random.uniform(-1, 1, (2, *model.image_shape)))
    context = tuple(jnp.asarray(random.normal(size=(2, 4, 5, width))) for _ in range(2))
    expected = model.apply({"params": params}, inputs, context)
    assert not np.allclose(expected, model.apply({"params": params}, inputs))

    @jax.jit
    def incremental(params, inputs, context):
        def call(method, *args):
            return model.apply({"params": params}, *args, method=method)

        state, rows = call("init_state", 2), []
        for row in range(4):
            here = tuple(bias[:, row] for bias in context)
            for column in range(5):
                # With all channels at once, which only the last one's logits may be asked for.
                pixel = inputs[:, row, column]
                logits, state = call("step", state, pixel, column, here)
                state = call("end_pixel", state, pixel, column)
                rows.append(logits)
            state = call("end_row", state, here)
        return jnp.stack(rows, axis=1).reshape(2, 4, 5, 2, 3)

    np.testing.assert_allclose(incremental(params, inputs, context), expected, atol=1e-9)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("channels", [pytest.param(1, marks=pytest.mark.slow), 3])
def test_sampling_gives_the_images_of_one_full_pass_a_value(x64, architecture, channels):
    model, params = model_and_parameters(architecture, (4, 5, channels), 4, dtype="float64")
    key = jax.random.key(3)
    drawn, _ = sample.in_lanes(
        model, params, key, np.zeros((6, 4, 5, channels), int), np.zeros((6, 4, 5, channels), bool)
    )
    logits = jax.jit(lambda params, x: evaluate.logits(model, params, x))
    uniforms = sample.value_uniforms(key, jnp.arange(6), model.image_shape)
    images = np.zeros((6, *model.image_shape), int)
    for value in itertools.product(*map(range, model.image_shape)):
        here = (slice(None), *value)
        images[here] = likelihoods.draw(logits(params, images)[here], uniforms[here])
    np.testing.assert_array_equal(drawn, images)
    assert len(np.unique(images.reshape(6, -1), axis=0)) == 6
