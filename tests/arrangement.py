"""What one process of a run computes, for tests that compare runs of several arrangements.

As a program: arrangement.py SET FOLDER --coordinator=... --num_processes=... --process_id=...
"""

import itertools
import sys
from pathlib import Path

import jax
import numpy as np
import optax

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runtime.devices import make_mesh, replicated, set_up_host_devices, shard_batch
from pixel_rnn_jax.runtime.processes import join
from pixel_rnn_jax.training import evaluate, optimizers
from pixel_rnn_jax.training.step import init_state, make_train_step

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


def measure(path: Path, devices: int | None = None) -> dict[str, np.ndarray]:
    """Returns what this process has seen and found in float64, on so many devices (None: all).

    `epoch` is its share of the images of two and a half epochs, `[50, rows, ...]`; `losses` are
    those of 50 steps, `gradient_of_NAME` those of the last step. `nats`, `standard_error` and
    `images` are the evaluation of the trained model on the set that `write_set` wrote at `path`.
    """
    here = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    config = Config(data=DataConfig(name=str(path), levels=4))
    train, test = (data.open_source(config, split) for split in ("train", "test"))
    mesh = make_mesh(devices)
    stream = data.train_batches(train, batch_size=BATCH, seed=3, **here)
    batches = [*itertools.islice(stream, STEPS)]
    found = {"epoch": np.stack([batch.images for batch in batches])}

    # Changes no gradient and keeps it as its state.
    keeping = optax.GradientTransformation(
        lambda params: params, lambda gradient, _, params=None: (gradient, gradient)
    )
    rmsprop = optimizers.build(OptimizerConfig(learning_rate=3e-3), STEPS)
    optimizer = optax.chain(keeping, rmsprop)
    with jax.enable_x64(True):
        model_config = ModelConfig(
            layers=1, features=4, head_features=4, first_kernel=3, dtype="float64"
        )
        model = PixelRNN(model_config, train.image_shape, train.levels)
        step_fn = make_train_step(model, optimizer, mesh, ema_decay=0.0)

        state = jax.jit(
            lambda: init_state(model, optimizer, jax.random.key(0), ema=False),
            out_shardings=replicated(mesh),
        )()
        losses = []
        for batch in batches:
            state, metrics = step_fn(state, shard_batch(mesh, batch), None)
            losses.append(float(metrics.nats))
        found["losses"] = np.array(losses)
        for key, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state[0]):
            found[f"gradient_of_{jax.tree_util.keystr(key)}"] = np.asarray(leaf)
        result = evaluate.measure(model, state.params, test, EVAL_BATCH, mesh)
    for name in ("nats", "standard_error", "images"):
        found[name] = np.asarray(getattr(result, name))
    return found


if __name__ == "__main__":
    path, folder, *flags = sys.argv[1:]
    coordinator, count, process = (flag.split("=")[1] for flag in flags)
    set_up_host_devices()
    join(coordinator, int(count), int(process))
    np.savez(Path(folder) / f"{process}.npz", allow_pickle=False, **measure(Path(path)))
