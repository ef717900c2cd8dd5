"""One device and several give the same gradients and the same training."""

import os
import subprocess
import sys

import jax
import numpy as np
import optax
import pytest

from pixel_rnn_jax import joint, parallel
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.models import PixelRNN

IMAGE_SHAPE, LEVELS, BATCH = (4, 5, 2), 3, 8


def model_of(architecture, **options):
    config = ModelConfig(architecture, layers=2, features=4, head_features=4, **options)
    return PixelRNN(config, IMAGE_SHAPE, LEVELS)


def train(model, optimizer, devices, steps, **options):
    """Returns the losses and the last state of a few steps on random images."""
    mesh = parallel.make_mesh(devices)
    step_fn = parallel.make_train_step(joint.nats_by_scale(model), optimizer, 0.9, mesh, **options)
    params = joint.init_parameters(model, jax.random.key(0))
    state = parallel.initial_state(params, optimizer, 0.9)
    state = jax.device_put(state, parallel.everywhere(mesh))
    losses = []
    for step in range(steps):
        images = np.random.default_rng(step).integers(LEVELS, size=(BATCH, *IMAGE_SHAPE))
        images = images.astype(np.uint8)
        state, metrics = step_fn(state, parallel.shard_batch(mesh, Batch(images)))
        losses.append(float(metrics["nats"]))
    return np.array(losses), jax.device_get(state)


@pytest.mark.parametrize(
    "architecture",
    ["pixel_cnn", pytest.param("row_lstm", marks=pytest.mark.slow), "diagonal_bilstm"],
)
def test_first_gradient_is_the_same_on_any_number_of_devices(architecture):
    # Plain descent by 1: the parameters change by the gradient itself.
    model, optimizer = model_of(architecture), optax.sgd(1.0)
    states = [train(model, optimizer, devices, 1)[1] for devices in (1, 2, 8)]
    for state in states[1:]:
        jax.tree.map(
            lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5),
            states[0]["params"],
            state["params"],
        )


@pytest.mark.slow  # In the quick tests, tests/test_distributed.py has it for one of them.
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("architecture", ["pixel_cnn", "row_lstm", "diagonal_bilstm"])
def test_losses_of_50_steps_are_the_same_on_any_number_of_devices(architecture):
    model, optimizer = model_of(architecture, dtype="float64"), optax.rmsprop(1e-3)
    runs = [train(model, optimizer, devices, 50) for devices in (1, 2, 8)]
    losses = runs[0][0]
    assert losses.dtype == np.float64 and losses[-5:].mean() < losses[:5].mean()
    for other, _ in runs[1:]:
        np.testing.assert_allclose(other, losses, rtol=0, atol=1e-9)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("architecture", "devices", "micro_batches"),
    [
        ("pixel_cnn", 2, 4),
        pytest.param("diagonal_bilstm", 2, 4, marks=pytest.mark.slow),
        pytest.param("diagonal_bilstm", 1, 8, marks=pytest.mark.slow),
    ],
)
def test_micro_batches_change_nothing_but_the_memory(architecture, devices, micro_batches):
    model, optimizer = model_of(architecture, dtype="float64"), optax.rmsprop(1e-3)
    whole, before = train(model, optimizer, devices, 5)
    parts, after = train(model, optimizer, devices, 5, micro_batches=micro_batches)
    np.testing.assert_allclose(parts, whole, rtol=0, atol=1e-9)
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-9),
        before["params"],
        after["params"],
    )


def test_micro_batches_need_less_memory():
    model, optimizer = model_of("row_lstm"), optax.rmsprop(1e-3)
    mesh = parallel.make_mesh(1)
    params = joint.init_parameters(model, jax.random.key(0))
    state = parallel.initial_state(params, optimizer, 0.9)
    batch = Batch(np.zeros((64, *IMAGE_SHAPE), np.uint8))
    sizes = []
    for micro_batches in (1, 8):
        loss_fn = joint.nats_by_scale(model)
        step_fn = parallel.make_train_step(
            loss_fn, optimizer, 0.9, mesh, micro_batches=micro_batches
        )
        compiled = step_fn.lower(state, batch).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    assert sizes[1] < sizes[0] / 3


def test_one_device_asks_all_to_stop():
    model, optimizer = model_of("pixel_cnn"), optax.sgd(1.0)
    mesh = parallel.make_mesh(4)
    step_fn = parallel.make_train_step(joint.nats_by_scale(model), optimizer, 0.0, mesh)
    batch = parallel.shard_batch(mesh, Batch(np.zeros((4, *IMAGE_SHAPE), np.uint8)))
    for asked in ([False] * 4, [False, False, True, False]):
        params = joint.init_parameters(model, jax.random.key(0))
        state = parallel.initial_state(params, optimizer, 0.0)
        state = jax.device_put(state, parallel.everywhere(mesh))
        _, measured = step_fn(state, batch, parallel.shard_batch(mesh, np.array(asked)))
        assert bool(measured["stop"] > 0) == any(asked)


def test_average_is_of_the_parameters_after_each_step():
    model, optimizer = model_of("pixel_cnn"), optax.sgd(0.01)
    start = joint.init_parameters(model, jax.random.key(0))
    (_, one), (_, two) = (train(model, optimizer, 1, steps) for steps in (1, 2))

    def check(first, after_one, after_two, average):
        expected = first
        for count, params in ((1, after_one), (2, after_two)):
            decay = min(0.9, (1 + count) / (10 + count))
            expected = decay * expected + (1 - decay) * params
        np.testing.assert_allclose(average, expected, rtol=1e-4, atol=1e-6)

    jax.tree.map(check, start, one["params"], two["params"], two["average"])


@pytest.mark.parametrize(("batch", "devices"), [(8, 8), (12, 6), (7, 7), (5, 5), (1, 1), (22, 2)])
def test_mesh_shares_the_batch_equally(batch, devices):
    assert parallel.mesh_for(batch).size == devices


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({}, None),
        ({"JAX_NUM_CPU_DEVICES": "3"}, 3),
        ({"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, 4),
    ],
)
def test_every_core_is_a_device_unless_the_environment_says_otherwise(environment, devices):
    program = """if True:
        import os
        from pixel_rnn_jax import parallel
        parallel.set_up_host_devices()
        import jax
        print(jax.device_count(), len(os.sched_getaffinity(0)), os.environ["XLA_FLAGS"])
    """
    clean = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    result = subprocess.run(
        [sys.executable, "-c", program],
        env=clean | {"JAX_PLATFORMS": "cpu"} | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    count, cores, flags = result.stdout.split(maxsplit=2)
    assert int(count) == (devices or int(cores))
    assert "--xla_cpu_multi_thread_eigen=false" in flags
