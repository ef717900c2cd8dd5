"""Likelihoods: distributions that add up to one, densities that integrate to one."""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax.model.likelihoods import (
    OUTPUTS,
    CoupledLogisticMixture,
    DiscretizedLogisticMixture,
    GaussianMixture,
    LogisticMixture,
    Softmax,
    likelihood_for,
)

LEVELS = [2, 17]
MIXTURES = 4


def outputs_of(likelihood, *, size=1.0, count=50):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, likelihood.outputs)) * size)


def sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


normal = np.vectorize(statistics.NormalDist().cdf)


def mixture(likelihood, outputs):
    """Weights, means and widths in levels, or in units of real values, from their definition."""
    weights, means, widths = np.split(np.asarray(outputs, float), 3, axis=-1)
    weights = np.exp(weights) / np.exp(weights).sum(-1, keepdims=True)
    places = np.linspace(-1, 1, MIXTURES + 2)[1:-1]
    if isinstance(likelihood, GaussianMixture):
        return weights, means + 2 * places, np.clip(np.exp(widths), 1e-4, 1e4)
    means = means + places
    first = max(1 / MIXTURES, 0.1 / likelihood.levels)
    widths = np.clip(np.exp(widths) * first, 0.1 / likelihood.levels, 10)
    half = likelihood.levels / 2
    return weights, (means + 1) * half, widths * half


DISCRETE = [
    likelihood_for(prnn.ModelConfig(output=name, mixtures=MIXTURES), levels)
    for name, class_ in OUTPUTS.items()
    for levels in LEVELS
    if class_.discrete
]
DENSITIES = [*(LogisticMixture(MIXTURES, levels) for levels in (2, 17)), GaussianMixture(MIXTURES)]


@pytest.mark.parametrize(
    "likelihood",
    [
        DiscretizedLogisticMixture(2, MIXTURES),
        DiscretizedLogisticMixture(65_536, MIXTURES),
        LogisticMixture(MIXTURES, 65_536),
        GaussianMixture(MIXTURES),
    ],
    ids=str,
)
def test_mixtures_stay_finite_with_extreme_outputs(likelihood):
    values = jnp.arange(6.0) * (getattr(likelihood, "levels", 256) - 1) // 5
    uniform = jnp.array([0, 1e-30, 0.3, 0.7, 1 - 2**-23, 1 - 2**-24])
    outputs = outputs_of(likelihood, size=100.0, count=6)
    run = jax.jit(jax.value_and_grad(lambda outputs: likelihood.log_prob(outputs, values).sum()))
    assert all(np.isfinite(x).all() for x in run(outputs))
    assert np.isfinite(jax.jit(likelihood.draw)(outputs, uniform, 1.0)).all()


def test_narrow_components_lose_no_probability_among_many_levels():
    """In float32, whose digits hardly tell the edges of the cells there."""
    levels = 65_536
    likelihood = DiscretizedLogisticMixture(levels, MIXTURES)
    outputs = outputs_of(likelihood, count=5).at[:, 2 * MIXTURES :].set(-30)
    log_probs = jax.jit(likelihood.log_prob)(outputs[:, None], jnp.arange(levels)[None])
    np.testing.assert_allclose(jnp.exp(log_probs).sum(-1), 1, atol=1e-4)


def test_coupled_channels_are_a_mixture_of_whole_pixels(x64):
    levels, random = 5, np.random.default_rng(0)
    likelihood = CoupledLogisticMixture(levels, MIXTURES)
    outputs = random.normal(size=(7, 1, likelihood.pixel_outputs(3)))
    pixels = np.stack(np.meshgrid(*3 * [np.arange(levels)]), axis=-1).reshape(1, -1, 3)
    tiled = np.repeat(outputs, pixels.shape[1], 1), np.repeat(pixels, 7, 0)
    of_channels = likelihood.split_channels(*map(jnp.asarray, tiled))
    found = np.exp(likelihood.log_prob(of_channels, tiled[1]).sum(-1))

    parts = outputs.reshape(7, 1, -1, MIXTURES)
    joint = np.exp(parts[:, :, 0]) / np.exp(parts[:, :, 0]).sum(-1, keepdims=True)
    slopes, inputs = np.tanh(parts[:, :, 7:]), pixels / (levels - 1) * 2 - 1
    for channel, pairs in enumerate([[], [(0, 0)], [(1, 0), (2, 1)]]):
        shift = sum(slopes[:, :, i] * inputs[..., earlier, None] for i, earlier in pairs)
        mean, width = parts[:, :, 1 + channel] + shift, parts[:, :, 4 + channel]
        mean, width = np.broadcast_arrays(mean, width)
        one = np.concatenate([np.zeros_like(mean), mean, width], axis=-1)
        _, means, widths = mixture(likelihood, one)
        value = pixels[..., channel, None]
        above = np.where(value == levels - 1, np.inf, (value + 1 - means) / widths)
        below = np.where(value == 0, -np.inf, (value - means) / widths)
        joint = joint * (sigmoid(above) - sigmoid(below))
    np.testing.assert_allclose(found, joint.sum(-1), atol=1e-12)
    np.testing.assert_allclose(found.sum(1), 1)


@pytest.mark.parametrize("levels", [300, 2**16])
def test_digits_have_the_probability_of_their_level(x64, levels):
    likelihood = DiscretizedLogisticMixture(levels, MIXTURES)
    outputs = outputs_of(likelihood, size=2.0, count=3)[:, None]
    values = np.array([[0, 1, 15, 16, 17, levels // 2, levels - 2, levels - 1]])
    first, log_prob = np.zeros((3, 8), int), 0.0
    digit_logits = jax.jit(likelihood.digit_logits, static_argnums=2)
    assert len(likelihood.digit_sizes) == len(f"{levels - 1:x}")
    for size in likelihood.digit_sizes:
        logits = digit_logits(outputs, jnp.asarray(first), size)
        digit = (values - first) // size
        log_probs = jax.nn.log_softmax(logits)
        log_prob += np.take_along_axis(np.asarray(log_probs), digit[..., None], -1)[..., 0]
        first = first + size * digit
    np.testing.assert_array_equal(first, np.broadcast_to(values, first.shape))
    np.testing.assert_allclose(log_prob, likelihood.log_prob(outputs, values), rtol=1e-9)


@pytest.mark.parametrize("levels", [3, 4096])
def test_draws_from_components_have_the_probabilities(levels):
    """By a chi-squared statistic; the ends, which reach to infinity, are among the levels."""
    likelihood, count = DiscretizedLogisticMixture(levels, MIXTURES), 200_000
    outputs = outputs_of(likelihood, size=2.0, count=2)
    uniform = jax.random.uniform(jax.random.key(0), (2, count))
    drawn = np.asarray(jax.jit(likelihood.draw)(outputs[:, None], uniform, 1.0))
    expected = count * np.exp(np.asarray(jax.jit(likelihood.conditionals)(outputs), float))
    assert expected[:, [0, -1]].max(0).min() > 100
    for values, means in zip(drawn, expected, strict=True):
        counts, common = np.bincount(values, minlength=levels), means > 5
        rest = [counts[~common].sum()], [means[~common].sum() + 1]
        seen, wanted = np.append(counts[common], rest[0]), np.append(means[common], rest[1])
        excess = ((seen - wanted) ** 2 / wanted).sum() - common.sum()
        assert abs(excess) < 5 * np.sqrt(2 * common.sum())


def test_a_mixture_of_many_levels_is_drawn_and_evaluated_in_little_memory():
    """Without an array of all levels, or of all components and levels."""
    sizes, uniform = (1000, 30), jax.ShapeDtypeStruct((1000,), jnp.float32)
    outputs = jax.ShapeDtypeStruct(sizes, jnp.float32)
    many, few = (DiscretizedLogisticMixture(levels, 10) for levels in (2**16, 256))
    draw = jax.jit(lambda *x: many.draw(*x, jnp.ones(()))).lower(outputs, uniform)
    conditionals = jax.jit(few.conditionals).lower(outputs)
    for lowered, most in ((draw, 2**22), (conditionals, 4 * 1000 * 256 * 4)):
        assert lowered.compile().memory_analysis().temp_size_in_bytes < most


def test_draws_never_have_a_level_without_probability():
    uniform = jnp.array([1 - 2**-24], jnp.float32)
    for levels in (200, 201, 300):  # The probabilities of the last two add up to less than one.
        logits = jnp.zeros((1, levels)).at[:, -1].set(-200)
        assert Softmax(levels).draw(logits, uniform, jnp.ones(())) == levels - 2


@pytest.mark.parametrize("likelihood", DENSITIES, ids=str)
def test_density_integrates_to_one_and_is_that_of_the_definition(x64, likelihood):
    outputs = outputs_of(likelihood, count=5)
    real = isinstance(likelihood, GaussianMixture)
    far = 60 if real else 60 * likelihood.levels
    points = np.linspace(-far, far, 400_001)
    density = np.exp(jax.jit(likelihood.log_prob)(outputs[:, None], jnp.asarray(points)[None]))
    np.testing.assert_allclose(np.trapezoid(density, points, axis=-1), 1, atol=1e-6)
    weights, means, widths = (x[:, None] for x in mixture(likelihood, outputs))
    z = (points[None, ::4000, None] - means) / widths
    unit = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) if real else sigmoid(z) * (1 - sigmoid(z))
    expected = (weights * unit / widths).sum(-1)
    np.testing.assert_allclose(density[:, ::4000], expected, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("likelihood", DENSITIES, ids=str)
def test_draws_have_the_density(x64, likelihood):
    outputs = outputs_of(likelihood, count=3)
    uniform = (np.arange(20_000) + 0.5) / 20_000
    outputs_, one = outputs[:, None], jnp.ones(())
    drawn = np.asarray(jax.jit(likelihood.draw)(outputs_, jnp.asarray(uniform)[None], one))
    weights, means, widths = (x[:, None] for x in mixture(likelihood, outputs))
    real = isinstance(likelihood, GaussianMixture)
    for point in (-1.5, 0.1, 2.0) if real else np.array([0.2, 0.5, 0.8]) * likelihood.levels:
        z = (point - means) / widths
        expected = (weights * (normal(z) if real else sigmoid(z))).sum(axis=(1, 2))
        np.testing.assert_allclose((drawn < point).mean(-1), expected, atol=2e-3)
    log_prob = likelihood.log_prob_of_draw(outputs_, jnp.asarray(drawn), one)
    np.testing.assert_array_equal(log_prob, likelihood.log_prob(outputs_, drawn))


@pytest.mark.parametrize("likelihood", DISCRETE, ids=str)
def test_probabilities_add_up_to_one_and_draws_have_them(likelihood):
    levels, count = likelihood.levels, 5_000
    outputs = outputs_of(likelihood, count=3)
    uniform = jnp.asarray((np.arange(count) + 0.5) / count)
    draw, log_prob_of_draw = jax.jit(likelihood.draw), jax.jit(likelihood.log_prob_of_draw)
    conditionals, log_prob = jax.jit(likelihood.conditionals), jax.jit(likelihood.log_prob)
    every = np.broadcast_to(np.arange(levels), (3, levels))
    for size in (10, 1):
        log_probs = np.asarray(conditionals(size * outputs), float)
        assert log_probs.shape == (3, levels)
        np.testing.assert_allclose(np.exp(log_probs).sum(-1), 1, atol=1e-5)
        found = log_prob(size * outputs[:, None], every)
        np.testing.assert_allclose(found, log_probs, rtol=1e-4, atol=2e-4)
    for temperature in (1.0, 0.5):
        expected = np.exp(log_probs / temperature)
        expected /= expected.sum(-1, keepdims=True)
        drawn = np.asarray(draw(outputs[:, None], uniform[None], temperature))
        for values, chances in zip(drawn, expected, strict=True):
            frequencies = np.bincount(values, minlength=levels) / count
            np.testing.assert_allclose(frequencies, chances, atol=2e-3)
        of_draw = log_prob_of_draw(outputs[:, None], every, temperature)
        np.testing.assert_allclose(np.exp(of_draw), expected, rtol=2e-3, atol=1e-6)
    for cold in (0.0, 1e-45):
        greedy = draw(outputs, uniform[:3], cold)
        np.testing.assert_array_equal(greedy, log_probs.argmax(-1))
        np.testing.assert_array_equal(log_prob_of_draw(outputs, greedy, cold), 0)


@pytest.mark.parametrize("levels", [2, 5])
def test_inputs_span_minus_one_to_one(levels):
    values = jnp.arange(levels, dtype=jnp.uint8)
    for likelihood in (Softmax(levels), DiscretizedLogisticMixture(levels, MIXTURES)):
        inputs = likelihood.inputs(values, jnp.float32)
        np.testing.assert_allclose(inputs, np.linspace(-1, 1, levels))
    ends = LogisticMixture(MIXTURES, levels).inputs(jnp.array([0.0, levels]), jnp.float32)
    np.testing.assert_allclose(ends, [-1, 1])
    values = jnp.array([-1e3, 0.5, 7.0])  # Real values enter as they are.
    inputs = GaussianMixture(MIXTURES).inputs(values, jnp.bfloat16)
    assert inputs.dtype == jnp.bfloat16
    np.testing.assert_array_equal(inputs, values.astype(jnp.bfloat16))


def test_a_value_that_repeats_has_a_finite_density_and_a_gradient():
    """The width ends at 1e-4, and a component that is far away gives no NaN."""
    likelihood, values = GaussianMixture(1), jnp.array([0.5, 30.0, -1e4])
    outputs = jnp.tile(jnp.array([[0.0, 0.5, -50.0]]), (3, 1))
    run = jax.value_and_grad(lambda outputs: likelihood.log_prob(outputs, values).sum())
    assert all(np.isfinite(x).all() for x in run(outputs))
    highest = likelihood.log_prob(outputs, values)[0]
    assert highest == pytest.approx(np.log(1e4) - 0.5 * np.log(2 * np.pi), rel=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_dequantised_values_stay_in_their_cells(dtype):
    images = np.random.default_rng(0).integers(np.iinfo(dtype).max + 1, size=(9, 50, 50, 3))
    images = images.astype(dtype)
    noisy = prnn.dequantize(images, jax.random.key(0))
    with pytest.raises(prnn.UserError, match="images"):
        prnn.dequantize(noisy, jax.random.key(0))
    assert noisy.dtype == jnp.float32
    np.testing.assert_array_equal(np.floor(noisy), images)
    noise = np.asarray(noisy, float) - images
    assert abs(noise.mean() - 0.5) < 0.01
    assert noise.var() == pytest.approx(1 / 12, rel=0.02)
