"""Times whole training steps and evaluation, beside the machine's matmul peak and a plain version.

    python benchmarks/train_step.py              # every size below
    python benchmarks/train_step.py pixel_cnn    # those whose name holds this word

"Plain" is the same model with `conv_lstm_reference` (a `lax.scan` with JAX's own gradient) and no
packing, on one device with as many threads as JAX likes. Each measurement is a process of its own;
times are medians. GFLOP/s count every weight of every matmul, masked or not, as two operations a
pixel, the backward pass as twice the forward, and no padding of the scan. Run nothing else beside
it.
"""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from pixel_rnn_jax import kernels
from pixel_rnn_jax.config import ModelConfig, OptimizerConfig
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.models import PixelRNN
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.step import TrainState, init_state, make_train_step

BATCH = 16
MNIST = {"image_shape": (28, 28, 1), "levels": 2}
CIFAR = {"image_shape": (32, 32, 3), "levels": 256}
WIDE = {"features": 128, "layers": 2, "head_features": 1024}
SIZES: dict[str, dict[str, Any]] = {
    "diagonal_bilstm, 7 layers, h=16, 28x28x1": MNIST | {"architecture": "diagonal_bilstm"},
    "row_lstm, 7 layers, h=16, 28x28x1": MNIST | {"architecture": "row_lstm"},
    "pixel_cnn, 7 layers, h=16, 28x28x1": MNIST | {"architecture": "pixel_cnn"},
    "diagonal_bilstm, 1 layer, h=32, 28x28x1": MNIST
    | {"architecture": "diagonal_bilstm", "layers": 1, "features": 32},
    "diagonal_bilstm, 2 layers, h=128, 32x32x3": CIFAR | WIDE | {"architecture": "diagonal_bilstm"},
    "row_lstm, 2 layers, h=128, 32x32x3": CIFAR | WIDE | {"architecture": "row_lstm"},
}


def median_seconds(function: Callable[[], Any], repeats: int = 15) -> float:
    """Times `function`, which returns arrays, after two calls that warm it up."""
    times = []
    for _ in range(repeats + 2):
        start = time.perf_counter()
        jax.block_until_ready(function())
        times.append(time.perf_counter() - start)
    return float(np.median(times[2:]))


def peak_gflops() -> float:
    """Returns what all devices together reach on large float32 matmuls."""
    mesh, size = devices.make_mesh(), 2048
    ones = devices.shard_batch(mesh, np.ones((mesh.size, size, size), np.float32))
    square = devices.map_batch(lambda _, x: x @ x, mesh)
    return 2 * mesh.size * size**3 / median_seconds(lambda: square((), ones), 7) / 1e9


def measure(name: str, *, plain: bool) -> dict[str, float]:
    """Measures one size in this process."""
    size = dict(SIZES[name])
    shape, levels = size.pop("image_shape"), size.pop("levels")
    model = PixelRNN(ModelConfig(**size, pack=1 if plain else 0), shape, levels)
    if plain:
        kernels.conv_lstm = kernels.conv_lstm_reference
    mesh = devices.make_mesh(1) if plain else devices.mesh_for(BATCH)
    optimizer = optimizers.build(OptimizerConfig(), steps=1000)
    step_fn: Any = make_train_step(model, optimizer, mesh, ema_decay=0.999)

    def new_state() -> TrainState:
        return init_state(model, optimizer, jax.random.key(0), ema=True)

    state = jax.jit(new_state, out_shardings=devices.replicated(mesh))()
    weights = sum(leaf.size for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1)
    random = np.random.default_rng(0)
    images = random.integers(levels, size=(BATCH, *shape)).astype(np.uint8)
    batch = devices.shard_batch(mesh, Batch(images))
    memory = step_fn.lower(state, batch, None).compile().memory_analysis().temp_size_in_bytes

    def step() -> Any:
        nonlocal state
        state, metrics = step_fn(state, batch, None)
        return metrics

    step_seconds = median_seconds(step)

    def nats(params: Any, batch: Batch) -> jax.Array:
        return model.nats_by_scale(params, *batch)

    def gradients(params: Any, batch: Batch) -> Any:
        gradient = jax.grad(lambda params: nats(params, batch).mean())(params)
        return jax.tree.map(lambda leaf: leaf[None], gradient)

    forward, gradient = devices.map_batch(nats, mesh), devices.map_batch(gradients, mesh)
    forward_seconds = median_seconds(lambda: forward(state.params, batch))
    gradient_seconds = median_seconds(lambda: gradient(state.params, batch))
    return {
        "step": step_seconds,
        "forward": forward_seconds,
        "gradient": gradient_seconds,
        "gflops": 6 * weights * shape[0] * shape[1] * BATCH / step_seconds / 1e9,
        "megabytes": memory / 1e6,
    }


def in_new_process(name: str, version: str) -> Any:
    """Measures "peak" or a size, of the version "fast" or "plain"."""
    command = [sys.executable, __file__, "--measure", name, version]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Prints the table."""
    if sys.argv[1:2] == ["--measure"]:
        name, version = sys.argv[2:]
        if version == "fast":
            devices.set_up_host_devices()
        print(
            json.dumps(peak_gflops() if name == "peak" else measure(name, plain=version == "plain"))
        )
        return
    words = sys.argv[1:]
    peak = in_new_process("peak", "fast")
    print(f"large float32 matmul on all devices: {peak:.0f} GFLOP/s; batch {BATCH}")
    for name in SIZES:
        if words and not any(word in name for word in words):
            continue
        fast = in_new_process(name, "fast")
        plain = in_new_process(name, "plain")
        print(
            f"{name}\n"
            f"    training   {BATCH / fast['step']:6.0f} images/s  {fast['gflops']:6.1f} GFLOP/s "
            f"({fast['gflops'] / peak:.1%} of the peak)  {plain['step'] / fast['step']:.1f}x plain "
            f"({BATCH / plain['step']:.0f} images/s)\n"
            f"    evaluation {BATCH / fast['forward']:6.0f} images/s\n"
            f"    a step of {fast['step'] * 1e3:.1f} ms: forward {fast['forward'] * 1e3:.1f}, "
            f"backward {(fast['gradient'] - fast['forward']) * 1e3:.1f}, all-reduce, update and "
            f"average {(fast['step'] - fast['gradient']) * 1e3:.1f}; "
            f"{fast['megabytes']:.0f} MB of temporaries a device (plain {plain['megabytes']:.0f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
