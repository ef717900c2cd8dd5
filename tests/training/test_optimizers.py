"""Learning-rate schedules and update rules against formulas written out in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers.random_models import random_like

import pixel_rnn_jax as prnn
from pixel_rnn_jax.system.trees import by_name
from pixel_rnn_jax.training import optimizers

RATE = 0.01
RMSPROP_DECAY, MUON_RMS = 0.99, 0.2  # Not those of the module, so that a change shows.
MODEL = prnn.ModelConfig(layers=1, features=8, head_features=8, num_classes=10)
WARMUP = {"warmup_steps": 4}
OptimizerConfig = functools.partial(prnn.OptimizerConfig, schedule="constant", weight_decay=0.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, {0: 1, 99: 1}),
        (WARMUP, {0: 1 / 4, 2: 3 / 4, 3: 1, 99: 1}),
        (
            WARMUP | {"schedule": "cosine"},
            {0: 1 / 4, 3: 1, 4: 1, 52: 1 / 2, 99: (1 + np.cos(np.pi * 95 / 96)) / 2, 100: 0},
        ),
        # Longer than the run: a tenth of it.
        ({"warmup_steps": 100}, {0: 1 / 10, 9: 1, 99: 1}),
        ({"warmup_steps": 300, "schedule": "cosine"}, {0: 1 / 10, 9: 1, 10: 1, 55: 1 / 2, 100: 0}),
    ],
)
def test_learning_rate(options, expected):
    rate = optimizers.learning_rate(OptimizerConfig(learning_rate=RATE, **options), steps=100)
    actual = {step: float(rate(step)) for step in expected}
    assert actual == pytest.approx({s: RATE * v for s, v in expected.items()}, rel=1e-4, abs=1e-9)
    # What is logged is what the update rule uses: Adam's update by a constant gradient.
    config = OptimizerConfig("adam", RATE, clip_norm=0.0, **options)
    optimizer = optimizers.build(config, steps=100)
    state, update = optimizer.init(np.float32(0)), jax.jit(optimizer.update)
    for step in range(max(expected) + 1):
        change, state = update(np.float32(1), state, np.float32(0))
        if step in expected:
            assert change == pytest.approx(-RATE * expected[step], rel=1e-3, abs=1e-9)


@pytest.mark.parametrize(("name", "clip_norm"), [("rmsprop", 1.0), ("adam", 0.0)])
def test_update_rule(name, clip_norm):
    config = OptimizerConfig(name=name, learning_rate=RATE, warmup_steps=2, clip_norm=clip_norm)
    optimizer = optimizers.build(config, steps=100)
    rng = np.random.default_rng(0)
    params = np.zeros(6, np.float32)
    state = optimizer.init(params)
    first, second = np.zeros(6), np.zeros(6)
    b1, b2 = (0.9, 0.999) if name == "adam" else (0.0, RMSPROP_DECAY)
    for t, scale in enumerate((0.01, 0.5, 10, 0.1), start=1):  # Norms on both sides of 1.
        gradient = scale * rng.normal(size=6).astype(np.float32)
        update, state = optimizer.update(jnp.asarray(gradient), state, params)
        norm = np.linalg.norm(gradient)
        if clip_norm and norm > clip_norm:
            gradient = gradient * (clip_norm / norm)
        first = b1 * first + (1 - b1) * gradient
        second = b2 * second + (1 - b2) * gradient**2
        step = first / (1 - b1**t) / (np.sqrt(second / (1 - b2**t)) + 1e-8)
        np.testing.assert_allclose(update, -RATE * min(1, t / 2) * step, rtol=2e-4)


@pytest.fixture(scope="module")
def params():
    shapes = jax.eval_shape(prnn.PixelRNN(MODEL, (8, 8, 1), 4).init, jax.random.key(0))
    return jax.tree.map(np.asarray, random_like(shapes, seed=0))


def first_update(optimizer, gradients, params):
    @jax.jit
    def update(gradients, params):
        return optimizer.update(gradients, optimizer.init(params), params)[0]

    return jax.tree.map(np.asarray, update(gradients, params))


def test_muon_orthogonalises_the_matrices(params):
    """An update has the singular vectors of the gradient, and singular values near one another."""
    config = OptimizerConfig("muon", RATE, clip_norm=0.0)
    optimizer = optimizers.build(config, steps=100)
    rng = np.random.default_rng(0)
    gradients = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    updates = first_update(optimizer, gradients, params)
    by_adam, by_muon = set(), 0
    for name, update in by_name(updates).items():
        gradient = by_name(gradients)[name]
        signs = -update / (RATE * np.sign(gradient))
        if np.ptp(signs) < 1e-3:  # Adam's first update is as long for every value.
            by_adam |= {name} if update.ndim > 1 else set()
            continue
        by_muon += 1
        rows, columns = np.prod(update.shape[:-1], dtype=int), update.shape[-1]
        left, _, right = np.linalg.svd(gradient.reshape(rows, columns), full_matrices=False)
        turned = -left.T @ update.reshape(rows, columns) @ right.T
        turned /= RATE * MUON_RMS * np.sqrt(max(rows, columns))
        values = np.diag(turned)
        assert values.min() > 0.4 and values.max() < 1.4, name
        np.testing.assert_allclose(turned, np.diag(values), atol=1e-3, err_msg=name)
    assert by_adam == {"scale_0/embed/embedding", "scale_0/logits/kernel"}
    assert by_muon == sum(p.ndim > 1 for p in jax.tree.leaves(params)) - len(by_adam)


@pytest.mark.parametrize("name", ["rmsprop", "muon"])
def test_weight_decay_takes_its_part_of_each_matrix(name, params):
    """It comes after the rule and the clipping, and leaves the rest of the parameters alone."""
    gradients = jax.tree.map(
        lambda p: 1 + np.arange(p.size, dtype=p.dtype).reshape(p.shape), params
    )
    updates, arrays = [], []
    for decay in (0.0, 0.5):
        config = OptimizerConfig(name, RATE, warmup_steps=2, weight_decay=decay)
        optimizer = optimizers.build(config, steps=100)
        updates.append(first_update(optimizer, gradients, params))
        arrays.append(by_name(optimizer.init(params)).keys())
    assert arrays[0] == arrays[1]  # So that a resumed run may change it.
    taken = jax.tree.map(np.subtract, *updates)
    untouched = set()
    for name, value in by_name(params).items():
        part = by_name(taken)[name]
        if value.ndim > 1 and np.any(part):
            np.testing.assert_allclose(part, RATE / 2 * 0.5 * value, atol=1e-8)
        else:
            assert not np.any(part)
            untouched |= {name} if value.ndim > 1 else set()
    assert untouched == {"scale_0/embed/embedding", "scale_0/logits/kernel"}
