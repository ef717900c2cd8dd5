"""Compresses a split with a trained model, and the same images with general codecs.

    python benchmarks/codec.py --model=mnist
    python benchmarks/codec.py --model=runs/cifar10 --split='test[:1000]'

The table is printed twice: for one image, and for all of them. For each codec they are in one file
(for those of pictures one tall column), so that headers do not decide; binary images get one bit a
pixel. JPEG XL takes part where `pillow-jxl-plugin` is installed. What is decompressed is compared
with the images. Run nothing else beside it; `taskset -c 0` shows what one core does.
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
from typing import Any

import jax
import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
import pixel_rnn_jax as prnn
from pixel_rnn_jax import shipped
from pixel_rnn_jax.image_model import of_run
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training.evaluate import open_split, with_data

PICTURES: dict[str, dict[str, Any]] = {
    "PNG, optimised": {"format": "PNG", "optimize": True},
    "WebP lossless": {
        "format": "WEBP",
        "lossless": True,
        "quality": 100,
        "method": 6,
        "copy_coarse": True,
    },
    "JPEG XL lossless": {"format": "JXL", "lossless": True, "effort": 9},
}
WEBP_SIDE = 16383
"""The most rows that a WebP file can have: beyond it, there are several files."""
LEAST_SECONDS = 1.0
"""What is faster than this is timed several times; the median counts."""

Codec = tuple[Callable[[np.ndarray], list[bytes]], Callable[[list[bytes]], np.ndarray]]


def of_pictures(levels: int, channels: int, options: dict[str, Any]) -> Codec:
    """Returns how to write images in one column as files of pictures, and how to read them."""

    def encode(images: np.ndarray) -> list[bytes]:
        count, height, width, _ = images.shape
        rows = WEBP_SIDE // height if options["format"] == "WEBP" else count
        files = []
        for start in range(0, count, rows):
            column = images[start : start + rows].reshape(-1, width, channels).astype(np.uint8)
            if levels == 2:
                picture = Image.fromarray(column[..., 0] * np.uint8(255)).convert("1")
            else:
                picture = Image.fromarray(column[..., 0] if channels == 1 else column)
            if options["format"] != "PNG" and picture.mode == "1":
                picture = picture.convert("L")
            file = io.BytesIO()
            picture.save(file, **options)
            files.append(file.getvalue())
        return files

    def decode(files: list[bytes]) -> np.ndarray:
        columns = []
        for file in files:
            picture = Image.open(io.BytesIO(file))
            values = np.asarray(picture.convert("L") if channels == 1 else picture)
            columns.append(values > 127 if levels == 2 else values)
        return np.concatenate(columns)

    return encode, decode


def of_xz(levels: int) -> Codec:
    """Returns how to write the bare values, or bits, as an xz file, and how to read it."""

    def encode(images: np.ndarray) -> list[bytes]:
        raw = np.packbits(images) if levels == 2 else images
        return [lzma.compress(raw.tobytes(), preset=9 | lzma.PRESET_EXTREME)]

    def decode(files: list[bytes]) -> np.ndarray:
        return np.frombuffer(lzma.decompress(files[0]), np.uint8)

    return encode, decode


def of_model(model: prnn.ImageModel, condition: np.ndarray | None, *, fast: bool) -> Codec:
    """Returns how to compress with a model, and how to decompress."""

    def encode(images: np.ndarray) -> list[bytes]:
        own = None if condition is None else condition[: len(images)]
        return [model.compress(images, own, fast=fast)]

    return encode, lambda files: np.asarray(model.decompress(files[0]))


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """Returns what a function returns, and its median time; the first call may compile."""
    found = function(*arguments)
    times: list[float] = []
    while not times or (sum(times) < LEAST_SECONDS and len(times) < 9):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return found, float(np.median(times))


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--model", required=True, help="a name of the package's, or a workdir")
    parser.add_argument("--data", help="where the data set is, if it has moved")
    parser.add_argument("--split", default="test[:256]", help="the images; default: %(default)s")
    arguments = parser.parse_args()
    workdir = shipped.place(arguments.model)
    run = open_run(workdir, devices.local_mesh(1))
    if arguments.data:
        run = with_data(run, workdir, arguments.data)
    source, model = open_split(run, arguments.split), of_run(run)
    images, condition = source.batch(np.arange(len(source)))
    levels, (height, width, channels) = model.levels, model.image_shape
    codecs = {
        "this model, portable": of_model(model, condition, fast=False),
        "this model, fast": of_model(model, condition, fast=True),
    }
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")  # It registers itself with Pillow.
    Image.init()
    if levels <= 256 and channels in (1, 3):
        for name, options in PICTURES.items():
            if options["format"] in Image.SAVE:
                codecs[name] = of_pictures(levels, channels, options)
    if levels <= 256:
        codecs["xz of the values"] = of_xz(levels)
    print(f"{model!r}, {jax.local_device_count()} devices")
    for count in dict.fromkeys((1, len(images))):
        own = images[:count]
        given = None if condition is None else condition[:count]
        bits = -float(model.log_prob(own, given).sum()) / math.log(2)
        if model.config.num_classes:
            bits += count * math.log2(model.config.num_classes)
        pixels = count * height * width
        print(f"\n{count} image{'s' * (count > 1)}: bytes, bits a pixel, images/s both ways")
        print(f"{'negative log-likelihood':24s} {bits / 8:12,.0f} {bits / pixels:9.4f}")
        for name, (encode, decode) in codecs.items():
            files, there = timed(encode, own)
            back, again = timed(decode, files)
            if name.startswith("this"):
                np.testing.assert_array_equal(back, own)
            elif "xz" not in name:
                np.testing.assert_array_equal(back.ravel(), own.ravel())
            size = sum(map(len, files))
            more = f"  {8 * size / bits - 1:+.3%} of it" if name.startswith("this") else ""
            speeds = f"{count / there:9.1f} {count / again:9.1f}"
            print(f"{name:24s} {size:12,} {8 * size / pixels:9.4f} {speeds}{more}", flush=True)


if __name__ == "__main__":
    main()
