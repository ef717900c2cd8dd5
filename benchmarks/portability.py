"""How much the logits of a model differ between machines, which decides what a file tolerates.

    python benchmarks/portability.py
    python benchmarks/portability.py --model=runs/mnist --python=OTHER/bin/python

Each variant runs in a process of its own: other instruction sets, other compiler flags, other
numbers of images side by side, with --python another version of JAX. Each computes the logits of
the same images, in float64 as the codec does; the table has the largest difference from the first
variant, divided by 1 + |logit|. The margin of the codec is MARGIN in
pixel_rnn_jax/codec/frequencies.py.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "SSE4.2": {"flags": "--xla_cpu_max_isa=SSE4_2"},
    "AVX": {"flags": "--xla_cpu_max_isa=AVX"},
    "AVX2": {"flags": "--xla_cpu_max_isa=AVX2"},
    "fast math": {"flags": "--xla_cpu_enable_fast_math=true --xla_cpu_fast_math_honor_nans=false"},
    "one thread": {"flags": "--xla_cpu_multi_thread_eigen=false"},
    "no library matmuls": {"flags": "--xla_cpu_experimental_ynn_fusion_type="},
    "one image at a time": {"lanes": 1},
    "whole maps": {"whole": True},
    "float32": {"dtype": "float32"},
}


def child(folder: Path, *, lanes: int, whole: bool, dtype: str, out: str) -> None:
    """Computes the logits of the images in the folder, in this process."""
    import jax

    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.config.update("jax_default_matmul_precision", "highest")
    import dataclasses

    import jax.numpy as jnp

    import pixel_rnn_jax as prnn
    from pixel_rnn_jax.generation.decode import decode

    model = prnn.load(folder / "model.safetensors")
    with np.load(folder / "images.npz") as file:
        images = file["images"]
    config = dataclasses.replace(model.config, dtype=dtype)
    pixel_rnn = prnn.PixelRNN(config, model.image_shape, model.levels)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), model.params)
    likelihood = pixel_rnn.discrete_likelihood()
    if whole:
        scale = pixel_rnn.scales[0]
        outputs = jax.jit(lambda p, x: scale.apply(p, x))(params, images)
        found = np.asarray(likelihood.logits(outputs))
    else:
        size = lanes or len(images)
        found = np.concatenate(
            [
                incremental(decode, pixel_rnn, likelihood, params, images[i : i + size])
                for i in range(0, len(images), size)
            ]
        )
    np.save(folder / out, found)


def incremental(
    decode: Any, pixel_rnn: Any, likelihood: Any, params: Any, images: np.ndarray
) -> np.ndarray:
    """Returns the logits `[N, H, W, C, K]` of given images from the loop over values."""
    import jax
    import jax.numpy as jnp

    given = jnp.asarray(images, jnp.int32)

    def choose(carry: Any, outputs: Any, place: Any) -> Any:
        logits = likelihood.logits(outputs)
        at = (slice(None), place.row, place.column, place.channel)
        return carry.at[at].set(logits), given[at]

    @jax.jit
    def run(params: Any) -> Any:
        width = 1 if pixel_rnn.levels == 2 else pixel_rnn.levels
        dtype = jax.tree.leaves(params)[0].dtype
        carry = jnp.zeros((*images.shape, width), dtype)
        return decode(pixel_rnn.scales, params, choose, carry, lanes=len(images))[1]

    return np.asarray(run(params))


def prepare(folder: Path, model: str, split: str) -> str:
    """Writes the model and the images, and returns what they are."""
    import jax

    import pixel_rnn_jax as prnn

    if model:
        found, images = prnn.load(model), prnn.read_images(model, split).images
    else:
        config = prnn.ModelConfig("diagonal_bilstm", layers=12, features=32)
        found = prnn.create(config, (16, 16, 3), 256)
        images = np.asarray(found.sample(jax.random.key(0), 8))
    found.save(folder / "model.safetensors")
    np.savez(folder / "images.npz", images=images)
    return f"{found!r}, {len(images)} images"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", default="", help="a workdir; default: 12 new layers of h=32")
    parser.add_argument("--images", default="test[:64]", help="a split of its data set")
    parser.add_argument("--python", default="", help="of another environment, as one more variant")
    parser.add_argument("--child", default="", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, folder = arguments.child.split(":", 1)
        variant = VARIANTS[name]
        options: dict[str, Any] = {"lanes": 0, "whole": False, "dtype": "float64"} | variant
        options.pop("flags", None)
        child(Path(folder), out=arguments.python or f"{name}.npy", **options)
        return
    with tempfile.TemporaryDirectory() as folder:
        print(prepare(Path(folder), arguments.model, arguments.images), flush=True)
        first = None
        runs = [(name, sys.executable, f"{name}.npy") for name in VARIANTS]
        if arguments.python:
            runs.append(("as it is", arguments.python, "other.npy"))
        for name, python, out in runs:
            flags = f"{os.environ.get('XLA_FLAGS', '')} {VARIANTS[name].get('flags', '')}".strip()
            words = [python, __file__, f"--child={name}:{folder}", f"--python={out}"]
            subprocess.run(words, env=os.environ | {"XLA_FLAGS": flags}, check=True)
            found = np.load(Path(folder) / out)
            first = found if first is None else first
            largest = (np.abs(found - first) / (1 + np.abs(first))).max()
            label = "another environment" if out == "other.npy" else name
            print(f"{label:22s} {largest:.1e}", flush=True)


if __name__ == "__main__":
    main()
