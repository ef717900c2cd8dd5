"""Compresses a split with a trained model, and the same images with general codecs.

    python benchmarks/codec.py --workdir=runs/mnist
    python benchmarks/codec.py --workdir=runs/cifar10 --split='test[:200]'

For each codec all images are in one file (for those of pictures one tall column), so that headers
do not decide; binary images get one bit a pixel. JPEG XL takes part where `pillow-jxl-plugin` is
installed. What is decompressed is compared with the images. Run nothing else beside it.
"""

import argparse
import contextlib
import importlib
import io
import lzma
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.codec import coder
from pixel_rnn_jax.runs.workdir import read_config

PICTURES = {
    "PNG, optimised": {"format": "PNG", "optimize": True},
    "WebP lossless": {
        "format": "WEBP",
        "lossless": True,
        "quality": 100,
        "method": 6,
        "exact": True,
    },
    "JPEG XL lossless": {"format": "JXL", "lossless": True, "effort": 9},
}
WEBP_SIDE = 16383
"""The most rows that a WebP file can have: beyond it, there are several files."""


def picture_bytes(images: np.ndarray, levels: int, options: dict[str, object]) -> int:
    """Returns the size of the images in one column, as a file of pictures."""
    count, height, width, channels = images.shape
    rows = WEBP_SIDE // height if options["format"] == "WEBP" else count
    total = 0
    for start in range(0, count, rows):
        column = images[start : start + rows].reshape(-1, width, channels).astype(np.uint8)
        if levels == 2:
            picture = Image.fromarray(column[..., 0] * np.uint8(255)).convert("1")
        else:
            picture = Image.fromarray(column[..., 0] if channels == 1 else column)
        if options["format"] != "PNG" and picture.mode == "1":
            picture = picture.convert("L")
        file = io.BytesIO()
        picture.save(file, **options)  # type: ignore[arg-type]
        total += file.tell()
    return total


def xz_bytes(images: np.ndarray, levels: int) -> int:
    """Returns the size of the bare values, or bits, as an xz file."""
    raw = np.packbits(images) if levels == 2 else images
    return len(lzma.compress(raw.tobytes(), preset=9 | lzma.PRESET_EXTREME))


def seconds(function: Callable[[], object]) -> float:
    """Times one call."""
    start = time.perf_counter()
    function()
    return time.perf_counter() - start


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--workdir", required=True, help="of a training run")
    parser.add_argument("--split", default="test[:1000]", help="the images; default: %(default)s")
    arguments = parser.parse_args()
    source = data.open_source(read_config(arguments.workdir), arguments.split)
    images, condition = source.batch(range(len(source)))
    model = prnn.load(arguments.workdir)
    dims = math.prod(model.image_shape)
    nats = -float(model.log_prob(images, condition).sum())

    def report(name: str, size: float, note: str = "") -> None:
        bits = 8 * size / len(images) / dims
        print(f"{name:24s} {size:12,.0f} bytes  {bits:7.4f} bits/dim  {note}", flush=True)

    print(f"{len(images)} images of shape {model.image_shape} and {model.levels} levels")
    first = model.compress(images[:1], None if condition is None else condition[:1])
    decoded = model.decompress(first)  # Compiles.
    stream = b""

    def encode() -> None:
        nonlocal stream
        stream = model.compress(images, condition)

    def decode() -> None:
        nonlocal decoded
        decoded = model.decompress(stream)

    speeds = [len(images) / seconds(function) for function in (encode, decode)]
    np.testing.assert_array_equal(decoded, images)
    report("summed NLL", nats / math.log(2) / 8)
    report(
        "this model",
        len(stream),
        f"{8 * len(stream) / (nats / math.log(2)) - 1:+.2%} of the NLL; {speeds[0]:.0f} images/s "
        f"compressed, {speeds[1]:.0f} images/s decompressed, {coder.LANES} lanes",
    )
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")  # It registers itself with Pillow.
    Image.init()
    if model.levels <= 256 and model.image_shape[-1] in (1, 3):
        for name, options in PICTURES.items():
            if options["format"] in Image.SAVE:
                report(name, picture_bytes(images, model.levels, options))
    report("xz of the values", xz_bytes(images, model.levels))
    report("the values themselves", len(images) * dims * math.ceil(math.log2(model.levels)) / 8)


if __name__ == "__main__":
    main()
