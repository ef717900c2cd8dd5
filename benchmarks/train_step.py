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
from typing import Any

import jax
import training
from training import median_seconds, peak_gflops, weights_of

from pixel_rnn_jax import kernels
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runtime import devices

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


def measure(name: str, *, plain: bool) -> dict[str, float]:
    """Measures one size in this process."""
    size = dict(SIZES[name])
    shape, levels = size.pop("image_shape"), size.pop("levels")
    config = ModelConfig(**size, images_per_lane=1 if plain else 0)
    if plain:
        kernels.conv_lstm = kernels.conv_lstm_reference
    mesh = devices.make_mesh(1) if plain else devices.mesh_for(BATCH)
    step = training.prepare(config, shape, levels, BATCH, mesh)
    step_seconds = median_seconds(step.run)
    model = PixelRNN(config, shape, levels)

    def nats(params: Any, batch: Batch) -> jax.Array:
        return model.nats_by_scale(params, *batch)

    forward = devices.map_batch(nats, mesh)
    forward_seconds = median_seconds(lambda: forward(step.params, step.batch))
    return {
        "step": step_seconds,
        "forward": forward_seconds,
        "gflops": 6 * weights_of(step.params) * shape[0] * shape[1] * BATCH / step_seconds / 1e9,
        "megabytes": step.temporaries / 1e6,
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
            f"    a step of {fast['step'] * 1e3:.1f} ms: forward {fast['forward'] * 1e3:.1f}; "
            f"{fast['megabytes']:.0f} MB of temporaries a device (plain {plain['megabytes']:.0f})",
            flush=True,
        )


if __name__ == "__main__":
    main()
