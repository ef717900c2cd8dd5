"""What one process of a run computes, for tests that compare runs of several arrangements.

As a program: arrangement.py SET FOLDER COORDINATOR PROCESSES PROCESS
"""

import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import optax

from pixel_rnn_jax import data, distributed, evaluate, joint, models, optimizers, parallel
from pixel_rnn_jax.config import DataConfig, ModelConfig, OptimizerConfig
from pixel_rnn_jax.images import Batch

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
    """Returns what this process has seen and found, on so many devices of its own (None: all).

    Args:
        path: What `write_set` has written.
        devices: Their number.

    Returns:
        `epoch`: the images of its share of an epoch and a little more, `[batches, rows, ...]`.
        `gradient_of_NAME`: those of the first step, in float32.
        `losses`: of 50 steps in float64, `[50]`.
        `nats`, `standard_error`, `images`: the evaluation of the trained model in float64.
    """
    here = {"process_index": jax.process_index(), "process_count": jax.process_count()}
    config = DataConfig(name=str(path), levels=4)
    train, test = (data.open_source(config, split) for split in ("train", "test"))
    mesh = parallel.make_mesh(devices)

    def batches() -> Iterator[Batch]:
        stream = data.train_batches(train, batch_size=BATCH, seed=3, **here)
        return itertools.islice(stream, max(STEPS, -(-len(train) // BATCH)))

    found = {"epoch": np.stack([batch.images for batch in batches()])}

    # An optimiser that changes nothing and keeps the gradient.
    keeping = optax.GradientTransformation(
        lambda params: params, lambda gradient, _, params: (optax.tree.zeros_like(params), gradient)
    )
    state, _ = _train(_model("float32", train), keeping, mesh, itertools.islice(batches(), 1))
    for name, leaf in jax.tree_util.tree_leaves_with_path(state["opt_state"]):
        found[f"gradient_of_{jax.tree_util.keystr(name)}"] = np.asarray(leaf)

    with jax.enable_x64(True):
        model = _model("float64", train)
        rmsprop = optimizers.build(OptimizerConfig(learning_rate=3e-3), STEPS)
        state, losses = _train(model, rmsprop, mesh, itertools.islice(batches(), STEPS))
        found["losses"] = np.array(losses)
        nats_fn = parallel.map_batch(joint.nats_by_scale(model), mesh)
        result = evaluate.measure(nats_fn, state["params"], test, EVAL_BATCH, mesh)
    evaluation = result.nats, result.standard_error, result.images
    names = "nats", "standard_error", "images"
    return found | {name: np.array(x) for name, x in zip(names, evaluation, strict=True)}


def _model(dtype: str, source: data.Source) -> models.Model:
    config = ModelConfig(layers=1, features=4, head_features=4, first_kernel=3, dtype=dtype)
    return models.create(config, source.image_shape, source.levels)


def _train(model, optimizer, mesh, batches):
    loss_fn = joint.nats_by_scale(model)
    step_fn = parallel.make_train_step(loss_fn, optimizer, 0.0, mesh)

    def new():
        return parallel.initial_state(
            joint.init_parameters(model, jax.random.key(0)), optimizer, 0.0
        )

    state = jax.jit(new, out_shardings=parallel.everywhere(mesh))()
    losses = []
    for batch in batches:
        state, measured = step_fn(state, parallel.shard_batch(mesh, batch))
        losses.append(float(measured["nats"]))
    return state, losses


if __name__ == "__main__":
    path, folder, coordinator, processes, process = sys.argv[1:]
    parallel.set_up_host_devices()
    distributed.join(coordinator, int(processes), int(process))
    np.savez(Path(folder) / f"{process}.npz", allow_pickle=False, **measure(Path(path)))
