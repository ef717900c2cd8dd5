"""Times the drawing of images, beside one full pass of the network for every value.

    python benchmarks/generation.py              # every size below, then image sides
    python benchmarks/generation.py pixel_cnn    # those whose name holds this word

Sixteen images are drawn through the incremental form, on all devices; times are medians. The full
pass that is compared with computes the logits of the same sixteen images, through the fast kernels
on all devices and through the plain ones (`conv_lstm_reference`, no packing) on one device. It is
timed once and multiplied by the H * W * C passes that drawing with it takes. Run nothing else
beside it.
"""

import subprocess
import sys
from typing import Any

import jax
import numpy as np
from training import median_seconds

import pixel_rnn_jax as prnn
from pixel_rnn_jax import kernels
from pixel_rnn_jax.runtime import devices

IMAGES = 16
REPEATS = 7
ARCHITECTURES = ("diagonal_bilstm", "row_lstm", "pixel_cnn")
SIDES = (8, 16, 32, 64)
MNIST: dict[str, Any] = {"image_shape": (28, 28, 1), "levels": 2}
COLOUR: dict[str, Any] = {
    "image_shape": (32, 32, 3),
    "levels": 256,
    "layers": 4,
    "features": 64,
    "head_features": 256,
}
SIZES: dict[str, dict[str, Any]] = {
    f"{architecture}, 7 layers, h=16, 28x28x1": MNIST | {"architecture": architecture}
    for architecture in ARCHITECTURES
} | {
    f"{architecture}, 4 layers, h=64, 32x32x3": COLOUR | {"architecture": architecture}
    for architecture in ARCHITECTURES
}
SIDE_SIZES: dict[str, dict[str, Any]] = {
    f"{architecture}, 7 layers, h=16, {side}x{side}x1": {
        "image_shape": (side, side, 1),
        "levels": 2,
        "architecture": architecture,
    }
    for architecture in ARCHITECTURES
    for side in SIDES
}


def model_of(name: str, *, plain: bool = False) -> prnn.ImageModel:
    """Returns the model of one size, with random parameters."""
    size = (SIZES | SIDE_SIZES)[name].copy()
    shape, levels = size.pop("image_shape"), size.pop("levels")
    return prnn.create(prnn.ModelConfig(**size, images_per_lane=1 if plain else 0), shape, levels)


def full_pass_seconds(name: str, *, plain: bool) -> float:
    """Times the logits of all values of all images."""
    if plain:
        kernels.conv_lstm = kernels.conv_lstm_reference
    model = model_of(name, plain=plain)
    mesh = devices.make_mesh(1) if plain else devices.mesh_for(IMAGES)
    (scale,) = model.pixel_rnn.scales

    def logits(params: Any, images: jax.Array) -> Any:
        return scale.apply(params, images)

    mapped = devices.map_batch(logits, mesh)
    params = jax.device_put(model.params, devices.replicated(mesh))
    images = devices.shard_batch(mesh, np.zeros((IMAGES, *model.image_shape), np.int32))
    return median_seconds(lambda: mapped(params, images), REPEATS)


def measure(name: str, what: str) -> float:
    """Measures one number in this process."""
    if what != "incremental":
        return full_pass_seconds(name, plain=what == "plain")
    model = model_of(name)
    return median_seconds(lambda: model.sample(jax.random.key(0), IMAGES), REPEATS)


def in_own_process(name: str, what: str) -> float:
    """Measures one number in a new process, as the command line would set it up."""
    command = [sys.executable, __file__, "--measure", name, what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the tables."""
    if sys.argv[1:2] == ["--measure"]:
        name, what = sys.argv[2:]
        if what != "plain":  # Plain JAX: one device, its own threads.
            devices.set_up_host_devices()
        print(measure(name, what))
        return
    word = "".join(sys.argv[1:2])
    print(f"JAX {jax.__version__}, {jax.default_backend()}; {IMAGES} images at a time")
    for name, size in SIZES.items():
        if word not in name:
            continue
        seconds, fast, plain = (in_own_process(name, w) for w in ("incremental", "fast", "plain"))
        passes = int(np.prod(size["image_shape"]))
        print(
            f"{name}: {seconds:.3f} s; one full pass a value: {passes * fast:.1f} s through the "
            f"fast kernels ({passes * fast / seconds:.0f}x), {passes * plain:.1f} s through the "
            f"plain ones ({passes * plain / seconds:.0f}x)",
            flush=True,
        )
    for name, size in SIDE_SIZES.items():
        if word not in name:
            continue
        seconds = in_own_process(name, "incremental")
        pixels = size["image_shape"][0] ** 2
        print(
            f"{name}: {1e3 * seconds / IMAGES:.2f} ms an image, "
            f"{1e6 * seconds / IMAGES / pixels:.1f} us a pixel",
            flush=True,
        )


if __name__ == "__main__":
    main()
