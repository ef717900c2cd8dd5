"""What the benchmarks of training share: a step that is ready to run, and its median time."""

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from pixel_rnn_jax.config import ModelConfig, OptimizerConfig
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.step import TrainState, init_state, make_train_step


class Step(NamedTuple):
    """A compiled step of training on random images.

    Attributes:
        run: Makes one step and returns its metrics.
        params: The parameters at the start.
        batch: The batch, split over the devices.
        temporaries: Bytes of temporaries on a device.
    """

    run: Callable[[], Any]
    params: Any
    batch: Batch
    temporaries: int


def prepare(
    config: ModelConfig, image_shape: tuple[int, int, int], levels: int, batch: int, mesh: Any
) -> Step:
    """Compiles a step with RMSProp and the moving average on `batch` images of this process."""
    model = PixelRNN(config, image_shape, levels)
    optimizer = optimizers.build(OptimizerConfig(), steps=1000)

    def new_state() -> TrainState:
        return init_state(model, optimizer, jax.random.key(0), ema=True)

    initial = jax.jit(new_state, out_shardings=devices.replicated(mesh))
    images = np.random.default_rng(0).integers(levels, size=(batch, *image_shape))
    rows = devices.shard_batch(mesh, Batch(images.astype(np.uint8 if levels <= 256 else np.int32)))
    state = initial()
    step = make_train_step(model, optimizer, mesh, ema_decay=0.999, micro_batches=0)
    compiled: Any = step.lower(state, rows, None).compile()  # type: ignore[attr-defined]

    def run() -> Any:
        nonlocal state
        state, metrics = compiled(state, rows, None)
        return metrics

    temporaries = compiled.memory_analysis().temp_size_in_bytes
    return Step(run, initial().params, rows, temporaries)


def median_seconds(function: Callable[[], Any], repeats: int = 15) -> float:
    """Times `function`, which returns arrays, after two calls that warm it up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


def weights_of(params: Any) -> int:
    """Returns the number of weights of all matmuls."""
    return sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)


def peak_gflops(dtype: str = "float32", size: int = 2048) -> float:
    """Returns what all devices together reach on matmuls of square matrices."""
    mesh = devices.make_mesh()
    ones = devices.shard_batch(mesh, np.ones((mesh.size, size, size), np.float32)).astype(dtype)
    square = devices.map_batch(lambda _, x: x @ x, mesh)
    return 2 * mesh.size * size**3 / median_seconds(lambda: square((), ones), 7) / 1e9
