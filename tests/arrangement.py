"""What one process of a run computes, for tests that compare runs of several arrangements.

As a program: arrangement.py SET FOLDER COORDINATOR PROCESSES PROCESS
"""

import itertools
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.models import PixelRNN
from pixel_rnn_jax.runtime import devices, processes
from pixel_rnn_jax.training import evaluate, optimizers
from pixel_rnn_jax.training.step import TrainState, init_state, make_train_step

BATCH, STEPS, EVAL_BATCH = 16, 50, 24
SIZES = {"train": 317, "validation": 1, "test": 101}
"""Primes: no number of processes, devices or images of a batch divides the sizes of the splits."""


def write_set(path: Path) -> None:
    """Writes random images of four levels, 4x5x1."""
    random = np.random.default_rng(0)
    splits = {
        name: random.integers(4, size=(n, 4, 5, 1), dtype=np.uint8) for name, n in SIZES.items()
    }
    np.savez(path, allow_pickle=False, **splits)


def measure(path: Path, devices_used: int | None = None) -> dict[str, np.ndarray]:
    """Returns what this process has seen and found, on so many devices of its own (None: all).

    Args:
        path: What `write_set` has written.
        devices_used: Their number.

    Returns:
        `epoch`: the images of its share of an epoch and a little more, `[batches, rows, ...]`.
        `gradient_of_NAME`: those of the first step, in float32.
        `losses`: of 50 steps in float64, `[50]`.
        `nats`, `standard_error`, `images`: the evaluation of the trained model in float64.
    """
    here = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    config = Config(data=DataConfig(name=str(path), levels=4))
    train, test = (data.open_source(config, split) for split in ("train", "test"))
    mesh = devices.make_mesh(devices_used)

    def batches() -> Iterator[Batch]:
        stream = data.train_batches(train, batch_size=BATCH, seed=3, **here)
        return itertools.islice(stream, max(STEPS, -(-len(train) // BATCH)))

    found = {"epoch": np.stack([batch.images for batch in batches()])}

    # An optimiser that changes nothing and keeps the gradient.
    keeping = optax.GradientTransformation(
        lambda params: params, lambda gradient, _, params: (optax.tree.zeros_like(params), gradient)
    )
    state, _ = _train(_model("float32", train), keeping, mesh, itertools.islice(batches(), 1))
    for name, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state):
        found[f"gradient_of_{jax.tree_util.keystr(name)}"] = np.asarray(leaf)

    with jax.enable_x64(True):
        model = _model("float64", train)
        rmsprop = optimizers.build(OptimizerConfig(learning_rate=3e-3), STEPS)
        state, losses = _train(model, rmsprop, mesh, itertools.islice(batches(), STEPS))
        found["losses"] = np.array(losses)
        result = evaluate.measure(model, state.params, test, EVAL_BATCH, mesh)
    names = "nats", "standard_error", "images"
    return found | {name: np.array(getattr(result, name)) for name in names}


def _model(dtype: str, source: data.Source) -> PixelRNN:
    config = ModelConfig(layers=1, features=4, head_features=4, first_kernel=3, dtype=dtype)
    return PixelRNN(config, source.image_shape, source.levels)


def _train(
    model: PixelRNN, optimizer: optax.GradientTransformation, mesh: Mesh, batches: Iterable[Batch]
) -> tuple[TrainState, list[float]]:
    step_fn = make_train_step(model, optimizer, mesh, ema_decay=0.0)

    def new() -> TrainState:
        return init_state(model, optimizer, jax.random.key(0), ema=False)

    state = jax.jit(new, out_shardings=devices.replicated(mesh))()
    losses = []
    for batch in batches:
        state, metrics = step_fn(state, devices.shard_batch(mesh, batch), None)
        losses.append(float(metrics.nats))
    return state, losses


if __name__ == "__main__":
    path, folder, coordinator, count, process = sys.argv[1:]
    devices.set_up_host_devices()
    processes.join(coordinator, int(count), int(process))
    np.savez(Path(folder) / f"{process}.npz", allow_pickle=False, **measure(Path(path)))
