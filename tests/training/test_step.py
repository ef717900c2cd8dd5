"""One device and several, and a batch in one piece and in several, train alike."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from helpers.random_models import assert_trees_close, random_like

from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.layers import Residual
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import devices, tuning
from pixel_rnn_jax.training.step import init_state, make_train_step

IMAGE_SHAPE, LEVELS, BATCH = (4, 5, 2), 3, 8


def model_of(architecture, **options):
    config = ModelConfig(architecture, layers=1, features=4, head_features=4, **options)
    return PixelRNN(config, IMAGE_SHAPE, LEVELS)


def new_state(model, optimizer, mesh):
    params = random_like(jax.eval_shape(model.init, jax.random.key(0)), seed=0)
    state = init_state(optimizer, params, ema=True)
    return jax.device_put(state, devices.replicated(mesh))


def train(model, optimizer, number, steps, images=None, **options):
    """Returns the losses of a few steps, by default on random images, and the state after each."""
    mesh = devices.make_mesh(number)
    step_fn = make_train_step(model, optimizer, mesh, ema_decay=0.9, **options)
    state = new_state(model, optimizer, mesh)
    losses, states = [], []
    for seed in range(steps):
        random = np.random.default_rng(seed).integers(LEVELS, size=(BATCH, *IMAGE_SHAPE))
        batch = random.astype(np.uint8) if images is None else images
        batch = devices.shard_batch(mesh, Batch(batch))
        state, metrics = step_fn(state, batch, None)
        losses.append(float(metrics.loss))
        states.append(jax.tree.map(np.array, state))  # Copies: the next step uses it up.
    return np.array(losses), states


@pytest.mark.usefixtures("x64")
def test_any_number_of_devices_and_of_micro_batches_has_the_same_gradients_and_average():
    # Plain descent: the parameters change by the gradient itself.
    model, optimizer = model_of("pixel_cnn", dtype="float64"), optax.sgd(0.1)
    one = train(model, optimizer, 1, 2)
    for number, parts in ((8, 1), (2, 4)):
        several = train(model, optimizer, number, 2, micro_batches=parts)
        assert_trees_close(several, one, 0, 1e-9)
    expected = new_state(model, optimizer, devices.make_mesh(1)).params
    for count, state in enumerate(one[1], start=1):
        decay = min(0.9, (1 + count) / (10 + count))
        expected = jax.tree.map(
            lambda average, params, decay=decay: decay * np.asarray(average) + (1 - decay) * params,
            expected,
            state.params,
        )
        assert_trees_close(state.ema, expected, 1e-4, 1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.slow
def test_dropout_depends_on_seed_step_and_image_and_not_on_devices_or_parts():
    config, optimizer = dict(architecture="pixel_cnn", dtype="float64"), optax.sgd(0.0)
    model, image = model_of(**config, dropout=0.5), np.full((1, *IMAGE_SHAPE), 2, np.uint8)
    equal = dict(images=image.repeat(BATCH, axis=0), seed=3)
    whole = train(model, optimizer, 1, 2, **equal)
    assert_trees_close(train(model, optimizer, 2, 2, micro_batches=2, **equal), whole, 0, 1e-9)
    losses = [*whole[0]]
    for other in (equal | dict(seed=4), equal | dict(images=image)):
        losses += [*train(model, optimizer, 1, 2, **other)[0]]
    losses += [*train(model_of(**config), optimizer, 1, 1, **equal)[0]]
    assert np.diff(np.sort(losses)).min() > 1e-3


def test_dropout_keeps_the_mean():
    keys, ones = jax.random.split(jax.random.key(0), 2), jnp.ones((2, 20, 30, 50))
    module = Residual(50, 1, residual=False, skip=False, dropout=0.25)
    kernel = {"expand": {"kernel": jnp.eye(50, 100), "bias": jnp.zeros(100)}}
    dropped = module.apply({"params": kernel}, None, ones, keys)[0][..., :50]
    np.testing.assert_allclose(np.unique(dropped), [0, 4 / 3], rtol=1e-6)
    assert abs(dropped.mean() - 1) < 0.01
    assert abs(np.corrcoef(dropped[0].ravel(), dropped[1].ravel())[0, 1]) < 0.03


@pytest.mark.parametrize(
    ("architecture", "side", "images", "parts"),
    [
        ("pixel_cnn", 28, 8, 8),  # One image at a time.
        ("pixel_cnn", 16, 6, 2),  # At most four, of which six make two parts.
        ("row_lstm", 28, 8, 2),  # Four share the steps of a scan.
        ("pixel_cnn", 8, 16, 1),
        ("pixel_cnn", 64, 3, 3),
    ],
)
def test_a_cpu_computes_few_pixels_at_a_time(monkeypatch, architecture, side, images, parts):
    recurrent = PixelRNN(ModelConfig(architecture), (side, side, 1), 2).recurrent
    monkeypatch.setattr(tuning, "cores", jax.local_device_count)
    assert tuning.parts(images, side * side, recurrent=recurrent) == parts
    monkeypatch.setattr(tuning, "cores", lambda: 2 * jax.local_device_count())
    assert tuning.parts(images, side * side, recurrent=recurrent) == 1
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert tuning.parts(images, side * side, recurrent=recurrent) == 1


def test_micro_batches_need_less_memory():
    model, optimizer, mesh = model_of("pixel_cnn"), optax.sgd(1.0), devices.make_mesh(1)
    state = new_state(model, optimizer, mesh)
    batch = Batch(np.zeros((64, *IMAGE_SHAPE), np.uint8))

    def memory(parts):
        step_fn = make_train_step(model, optimizer, mesh, ema_decay=0.9, micro_batches=parts)
        compiled = step_fn.lower(state, batch, None).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert memory(8) < memory(1) / 3


def test_one_device_asks_all_to_stop():
    model, optimizer, mesh = model_of("pixel_cnn"), optax.sgd(1.0), devices.make_mesh(4)
    step_fn = make_train_step(model, optimizer, mesh, ema_decay=0.9)
    batch = devices.shard_batch(mesh, Batch(np.zeros((4, *IMAGE_SHAPE), np.uint8)))
    for asked in ([False] * 4, [False, False, True, False]):
        state = new_state(model, optimizer, mesh)
        _, metrics = step_fn(state, batch, devices.shard_batch(mesh, np.array(asked)))
        assert bool(metrics.stop > 0) == any(asked)
