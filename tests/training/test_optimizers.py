"""Learning-rate schedules and update rules against formulas written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pixel_rnn_jax.config import OptimizerConfig
from pixel_rnn_jax.training import optimizers

RATE = 0.01
WARMUP = 4


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: 1, 99: 1}),
        ({"warmup_steps": WARMUP}, {0: 1 / 4, 2: 3 / 4, 3: 1, 99: 1}),
        (
            {"warmup_steps": WARMUP, "schedule": "cosine"},
            {0: 1 / 4, 3: 1, 4: 1, 52: 1 / 2, 99: (1 + np.cos(np.pi * 95 / 96)) / 2, 100: 0},
        ),
        (
            {"schedule": "piecewise", "boundaries": (10, 20), "factors": (0.5, 0.1)},
            {0: 1, 9: 1, 10: 0.5, 19: 0.5, 20: 0.05, 99: 0.05},
        ),
        (
            {
                "schedule": "piecewise",
                "warmup_steps": WARMUP,
                "boundaries": (2,),
                "factors": (0.5,),
            },
            {1: 1 / 2, 2: 3 / 8, 3: 1 / 2, 50: 1 / 2},
        ),
    ],
)
def test_learning_rate(options, expected):
    rate = optimizers.learning_rate(OptimizerConfig(learning_rate=RATE, **options), steps=100)
    actual = {step: float(rate(step)) for step in expected}
    assert actual == pytest.approx({s: RATE * v for s, v in expected.items()}, rel=1e-4, abs=1e-9)
    # What is logged is what the update rule uses.
    traced = jax.jit(rate)(jnp.asarray(3, jnp.int32))
    np.testing.assert_allclose(traced, rate(3), rtol=1e-6)


def _updates(config: OptimizerConfig, gradients: list[np.ndarray]) -> list[np.ndarray]:
    optimizer = optimizers.build(config, steps=100)
    params = jnp.zeros_like(gradients[0])
    state = optimizer.init(params)
    updates = []
    for gradient in gradients:
        update, state = optimizer.update(jnp.asarray(gradient), state, params)
        updates.append(np.asarray(update))
        params = optax.apply_updates(params, update)
    return updates


@pytest.fixture
def gradients():
    rng = np.random.default_rng(0)
    # Norms on both sides of 1.
    return [scale * rng.normal(size=6).astype(np.float32) for scale in (0.01, 0.5, 10, 0.1)]


@pytest.mark.parametrize("clip_norm", [0.0, 1.0])
@pytest.mark.parametrize("name", ["rmsprop", "adam"])
def test_update_rule(gradients, name, clip_norm):
    config = OptimizerConfig(name=name, learning_rate=RATE, warmup_steps=2, clip_norm=clip_norm)
    first, second = np.zeros(6), np.zeros(6)
    b1, b2 = (0.9, 0.999) if name == "adam" else (0.0, optimizers.RMSPROP_DECAY)
    for t, (update, gradient) in enumerate(
        zip(_updates(config, gradients), gradients, strict=True), start=1
    ):
        norm = np.linalg.norm(gradient)
        if clip_norm and norm > clip_norm:
            gradient = gradient * (clip_norm / norm)
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        step = first / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + 1e-8)
        rate = RATE * min(1, t / 2)
        np.testing.assert_allclose(update, -rate * step, rtol=2e-4)


def test_first_rmsprop_update_is_no_larger_than_the_rate(gradients):
    first, *_ = _updates(OptimizerConfig(learning_rate=RATE), gradients)
    np.testing.assert_allclose(np.abs(first), RATE, rtol=1e-3)
