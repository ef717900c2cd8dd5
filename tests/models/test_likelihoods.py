"""What outputs mean: distributions that add up to one, densities that integrate to one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax.models.likelihoods import ContinuousMixture, LogisticMixture, Softmax

LEVELS = [2, 3, 17, 256]
MIXTURES = 4


def outputs_of(likelihood, *, size=1.0, count=50):
    return jnp.asarray(np.random.default_rng(0).normal(size=(count, likelihood.outputs)) * size)


def sigmoid(x):
    return (1 + np.tanh(x / 2)) / 2


def mixture(likelihood, outputs):
    """Weights, means and widths in levels, from their definition alone."""
    weights, means, widths = np.split(np.asarray(outputs, float), 3, axis=-1)
    weights = np.exp(weights) / np.exp(weights).sum(-1, keepdims=True)
    means = means + np.linspace(-1, 1, MIXTURES + 2)[1:-1]
    first = max(1 / MIXTURES, 0.1 / likelihood.levels)
    widths = np.clip(np.exp(widths) * first, 0.1 / likelihood.levels, 10)
    half = likelihood.levels / 2
    return weights, (means + 1) * half, widths * half


@pytest.mark.parametrize("levels", LEVELS)
@pytest.mark.parametrize("kind", [Softmax, LogisticMixture])
def test_probabilities_add_up_to_one_and_hold_what_log_prob_returns(kind, levels):
    likelihood = kind(levels) if kind is Softmax else kind(levels, MIXTURES)
    conditionals, log_prob = jax.jit(likelihood.conditionals), jax.jit(likelihood.log_prob)
    for size in (1, 10):
        outputs, values = outputs_of(likelihood, size=size), np.arange(50) % levels
        found = np.asarray(conditionals(outputs))
        assert found.shape == (50, levels)
        np.testing.assert_allclose(np.exp(found).sum(-1), 1, atol=1e-5)
        picked = found[np.arange(50), values]
        np.testing.assert_allclose(log_prob(outputs, values), picked, rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize("levels", LEVELS)
def test_discretised_mixture_is_the_mass_of_the_cells(x64, levels):
    likelihood = LogisticMixture(levels, MIXTURES)
    outputs = outputs_of(likelihood)
    weights, means, widths = mixture(likelihood, outputs)
    edges = np.arange(1, levels)[:, None, None]
    below = (weights * sigmoid((edges - means) / widths)).sum(-1)
    cumulative = np.concatenate([np.zeros((1, 50)), below, np.ones((1, 50))])
    expected = np.diff(cumulative, axis=0).T
    np.testing.assert_allclose(np.exp(likelihood.conditionals(outputs)), expected, atol=1e-12)


@pytest.mark.parametrize("levels", [2, 256, 65_536])
def test_mixtures_stay_finite_with_extreme_outputs(levels):
    values = jnp.arange(6.0) * (levels - 1) // 5
    uniform = jnp.array([0, 1e-30, 0.3, 0.7, 1 - 2**-23, 1 - 2**-24])
    for kind in (LogisticMixture, ContinuousMixture):
        likelihood = kind(levels, MIXTURES)
        outputs = outputs_of(likelihood, size=100.0, count=6)
        run = jax.jit(jax.value_and_grad(lambda x, own=likelihood: own.log_prob(x, values).sum()))
        assert all(np.isfinite(x).all() for x in run(outputs))
        assert np.isfinite(jax.jit(likelihood.draw)(outputs, uniform, 1.0)).all()


@pytest.mark.parametrize("levels", [50_000, 65_536])
def test_narrow_components_lose_no_probability_among_many_levels(levels):
    """In float32, whose digits hardly tell the edges of the cells there."""
    likelihood = LogisticMixture(levels, MIXTURES)
    outputs = outputs_of(likelihood).at[:, 2 * MIXTURES :].set(-30)
    log_probs = likelihood.log_prob(outputs[:, None], jnp.arange(levels)[None])
    np.testing.assert_allclose(jnp.exp(log_probs).sum(-1), 1, atol=1e-4)


def test_draws_never_have_a_level_without_probability():
    uniform = jnp.array([1 - 2**-24], jnp.float32)
    for levels in (200, 201, 300):  # The probabilities of the last two add up to less than one.
        logits = jnp.zeros((1, levels)).at[:, -1].set(-200)
        assert Softmax(levels).draw(logits, uniform, jnp.ones(())) == levels - 2


def test_conditionals_of_a_mixture_need_no_array_of_components_and_levels():
    likelihood = LogisticMixture(256, 10)
    shape = jax.ShapeDtypeStruct((1000, likelihood.outputs), jnp.float32)
    compiled = jax.jit(likelihood.conditionals).lower(shape).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 4 * 1000 * 256 * 4


@pytest.mark.parametrize("levels", [2, 17])
def test_density_is_one_per_unit_of_a_level(x64, levels):
    likelihood = ContinuousMixture(levels, MIXTURES)
    outputs = outputs_of(likelihood, count=5)
    points = np.linspace(-60 * levels, 60 * levels, 400_001)
    density = np.exp(likelihood.log_prob(outputs[:, None], jnp.asarray(points)[None]))
    np.testing.assert_allclose(np.trapezoid(density, points, axis=-1), 1, atol=1e-6)
    weights, means, widths = (x[:, None] for x in mixture(likelihood, outputs))
    z = sigmoid((points[None, ::4000, None] - means) / widths)
    expected = (weights * z * (1 - z) / widths).sum(-1)
    np.testing.assert_allclose(density[:, ::4000], expected, rtol=1e-8, atol=1e-12)


def test_draws_have_the_density(x64):
    likelihood = ContinuousMixture(17, MIXTURES)
    outputs = outputs_of(likelihood, count=3)
    uniform = (np.arange(20_000) + 0.5) / 20_000
    drawn = np.asarray(likelihood.draw(outputs[:, None], jnp.asarray(uniform)[None], None))
    weights, means, widths = (x[:, None] for x in mixture(likelihood, outputs))
    for point in (3.0, 8.5, 14.0):
        expected = (weights * sigmoid((point - means) / widths)).sum(axis=(1, 2))
        np.testing.assert_allclose((drawn < point).mean(-1), expected, atol=2e-3)


@pytest.mark.parametrize("levels", LEVELS)
def test_draws_have_the_probabilities(levels):
    likelihood, count = LogisticMixture(levels, MIXTURES), 5_000
    outputs = outputs_of(likelihood, count=3)
    uniform = jnp.asarray((np.arange(count) + 0.5) / count)
    draw = jax.jit(likelihood.draw)
    log_probs = np.asarray(jax.jit(likelihood.conditionals)(outputs), float)
    for temperature in (1.0, 0.5):
        expected = np.exp(log_probs / temperature)
        expected /= expected.sum(-1, keepdims=True)
        drawn = np.asarray(draw(outputs[:, None], uniform[None], temperature))
        for values, chances in zip(drawn, expected, strict=True):
            frequencies = np.bincount(values, minlength=levels) / count
            np.testing.assert_allclose(frequencies, chances, atol=2e-3)
    np.testing.assert_array_equal(draw(outputs, uniform[:3], None), log_probs.argmax(-1))


@pytest.mark.parametrize("levels", [2, 5])
def test_inputs_span_minus_one_to_one(levels):
    values = jnp.arange(levels, dtype=jnp.uint8)
    for likelihood in (Softmax(levels), LogisticMixture(levels, MIXTURES)):
        np.testing.assert_allclose(likelihood.inputs(values), np.linspace(-1, 1, levels))
    ends = ContinuousMixture(levels, MIXTURES).inputs(jnp.array([0.0, levels]))
    np.testing.assert_allclose(ends, [-1, 1])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_dequantised_values_stay_in_their_cells(dtype):
    images = np.random.default_rng(0).integers(np.iinfo(dtype).max + 1, size=(9, 50, 50, 3))
    images = images.astype(dtype)
    noisy = prnn.dequantize(images, jax.random.key(0))
    with pytest.raises(prnn.UserError, match="dequantize takes integers, got float32"):
        prnn.dequantize(noisy, jax.random.key(0))
    assert noisy.dtype == jnp.float32
    np.testing.assert_array_equal(np.floor(noisy), images)
    noise = np.asarray(noisy, float) - images
    assert abs(noise.mean() - 0.5) < 0.01
    assert noise.var() == pytest.approx(1 / 12, rel=0.02)
