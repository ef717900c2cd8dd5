"""Compresses a split with a trained model, and the same images with general codecs.

    python benchmarks/codec.py --model=mnist --data_dir=DIR
    python benchmarks/codec.py --model=runs/cifar10 --split='test[:1000]'
    python benchmarks/codec.py --model=cifar10 --split='test[:100]' --peer=nelloc=CHECKOUT \
        --python=PEERS_PYTHON

The table is printed twice: for one image, and for all images in one file (for codecs of pictures
one tall column), so that headers do not decide; binary images get one bit a pixel. The peer is
NeLLoC with each of its weights for CIFAR-10 that the checkout has (nelloc.py). JPEG XL needs
`pillow-jxl-plugin`, and greys of more than 256 levels `imagecodecs`. What is decompressed is
compared with the images. The codecs are timed in turn; speeds are of the median times. Run nothing
else beside it; `taskset -c 0` shows what one core does.
"""

import argparse
import contextlib
import functools
import importlib.util
import io
import lzma
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import timing
from PIL import Image
from timing import Worker, in_turn, timer

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli.flags import data_flags
from pixel_rnn_jax.model.likelihoods import value_dtype
from pixel_rnn_jax.runs.source import open_run
from pixel_rnn_jax.system import devices

WEBP: dict[str, Any] = {"lossless": True, "quality": 100, "method": 6, "exact": True}
PICTURES: dict[str, dict[str, Any]] = {
    "PNG, optimised": {"format": "PNG", "optimize": True},
    "WebP lossless": {"format": "WEBP", **WEBP},
    "JPEG XL lossless": {"format": "JXL", "lossless": True, "effort": 9},
}
"""What Pillow's `save` takes."""
DEEP: dict[str, tuple[str, dict[str, Any]]] = {
    "JPEG-LS": ("jpegls", {}),
    "JPEG XL": ("jpegxl", {"lossless": True, "effort": 10}),
}
"""What the functions of `imagecodecs` take."""
WEBP_ROWS = 16383
"""The most rows that a WebP file can have: beyond it, there are several files."""

Codec = tuple[Callable[[np.ndarray], list[bytes]], Callable[[list[bytes]], np.ndarray]]
"""How images `[N, H, W, C]` become files, and how these become the values again, in order."""


def of_pictures(levels: int, channels: int, options: dict[str, Any]) -> Codec:
    """Returns a codec that writes images in one column as files of pictures."""

    def encode(images: np.ndarray) -> list[bytes]:
        count, height, width, _ = images.shape
        rows = WEBP_ROWS // height if options["format"] == "WEBP" else count
        files = []
        for start in range(0, count, rows):
            column = images[start : start + rows].reshape(-1, width, channels).astype(np.uint8)
            column *= 255 if levels == 2 else 1
            picture = Image.fromarray(column[..., 0] if channels == 1 else column)
            if levels == 2 and channels == 1 and options["format"] == "PNG":
                picture = picture.convert("1")
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


def of_deep(name: str, options: dict[str, Any]) -> Codec:
    """Returns a codec of `imagecodecs` that writes grey images in one column of 16 bits."""
    library = importlib.import_module("imagecodecs")

    def encode(images: np.ndarray) -> list[bytes]:
        column = images.reshape(-1, images.shape[2]).astype(np.uint16)
        return [bytes(getattr(library, f"{name}_encode")(column, **options))]

    return encode, lambda files: getattr(library, f"{name}_decode")(files[0])


def of_xz(levels: int) -> Codec:
    """Returns a codec that writes the bare values, or bits, as an xz file."""
    dtype = value_dtype(levels)

    def encode(images: np.ndarray) -> list[bytes]:
        raw = np.packbits(images) if levels == 2 else images.astype(dtype)
        return [lzma.compress(raw.tobytes(), preset=9 | lzma.PRESET_EXTREME)]

    def decode(files: list[bytes]) -> np.ndarray:
        raw = np.frombuffer(lzma.decompress(files[0]), dtype)
        return np.unpackbits(raw) if levels == 2 else raw

    return encode, decode


def of_model(model: prnn.ImageModel, condition: np.ndarray | None) -> Codec:
    """Returns the codec of a model, given the condition of the images."""

    def encode(images: np.ndarray) -> list[bytes]:
        return [model.compress(images, None if condition is None else condition[: len(images)])]

    return encode, lambda files: np.asarray(model.decompress(files[0]))


def measure(
    codecs: dict[str, Codec],
    peers: list[Worker],
    images: np.ndarray,
    bits: float,
    options: argparse.Namespace,
) -> None:
    """Prints the rows of all codecs; `bits` is the negative log-likelihood."""
    count = len(images)
    print(f"\n{count} image{'s' * (count > 1)}: bytes, bits/dim, images/s both ways")
    print(f"{'negative log-likelihood':24s} {bits / 8:12,.0f} {bits / images.size:9.4f}")
    sizes: dict[str, int] = {}
    timers: dict[tuple[str, str], timing.Timer] = {}
    for peer in peers:
        name, sizes[name] = peer.facts["name"], peer.facts["bytes"]
        timers |= {(name, way): measured for way, measured in peer.timers.items()}
        likelihood = f"{peer.facts['bits'] / 8:12,.0f} {peer.facts['bits'] / images.size:9.4f}"
        print(f"  {name:22s} {likelihood}  {peer.facts['parameters']:,} parameters")
    for name, (encode, decode) in codecs.items():
        files = encode(images)
        values = decode(files).ravel()[: images.size]  # Bits are filled up to bytes.
        np.testing.assert_array_equal(values, images.ravel(), err_msg=name)
        sizes[name] = sum(map(len, files))
        timers[name, "there"] = timer(functools.partial(encode, images), options.seconds, 0)
        timers[name, "back"] = timer(functools.partial(decode, files), options.seconds, 0)
    times = in_turn(timers, options.rounds)
    for name, size in sizes.items():
        speeds = f"{count / times[name, 'there']:9.1f} {count / times[name, 'back']:9.1f}"
        excess = f"  {8 * size / bits - 1:+.3%} of it" if name == "this model" else ""
        print(f"{name:24s} {size:12,} {8 * size / images.size:9.4f} {speeds}{excess}")


def main(arguments: list[str] | None = None) -> None:
    """Prints the tables."""
    flags = timing.parser(__doc__)
    timing.add_flags(flags)
    flags.add_argument("--model", required=True, help="a model of the package, or a workdir")
    flags.add_argument("--split", default="test[:256]", help="the images; default: %(default)s")
    flags.add_argument("--peer", default="", metavar="nelloc=CHECKOUT")
    flags.add_argument("--python", default=sys.executable, help="the peer's interpreter")
    data_flags(flags)
    options = flags.parse_args(arguments)
    name, _, checkout = options.peer.partition("=")
    weights = sorted(Path(checkout).glob("model_save/*cifar*")) if name == "nelloc" else []
    if options.peer and not weights:
        flags.error(f"--peer={options.peer} is not nelloc= with a checkout that has model_save")
    devices.set_up_host_devices()
    run = open_run(options.model)
    split = run.read_split(options.split, name=options.data_name, data_dir=options.data_dir)
    model = run.image_model
    images, condition = split.batch(np.arange(len(split)))
    levels, channels = model.levels, model.image_shape[-1]
    codecs = {"this model": of_model(model, condition)}
    with contextlib.suppress(ImportError):
        importlib.import_module("pillow_jxl")  # It registers itself with Pillow.
    Image.init()
    if levels <= 256 and channels in (1, 3):
        codecs |= {
            name: of_pictures(levels, channels, saving)
            for name, saving in PICTURES.items()
            if saving["format"] in Image.SAVE
        }
    if 256 < levels <= 2**16 and channels == 1 and importlib.util.find_spec("imagecodecs"):
        codecs |= {name: of_deep(*how) for name, how in DEEP.items()}
    codecs["xz of the values"] = of_xz(levels)
    print(f"{model!r}, on {timing.machine()}")
    nats = -np.asarray(model.log_prob(images, condition), np.float64)
    bits = (nats + math.log(model.config.num_classes or 1)) / math.log(2)  # And of the class.
    for count in dict.fromkeys((1, len(images))):
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".npy"))
            np.save(file, images[:count])
            file.flush()
            script = str(Path(__file__).with_name("nelloc.py"))
            settings = {"checkout": checkout, "images": file.name, "seconds": options.seconds}
            workers = [Worker(script, options.python, weights=str(w), **settings) for w in weights]
            peers = [stack.enter_context(worker) for worker in workers]
            measure(codecs, peers, images[:count], float(bits[:count].sum()), options)


if __name__ == "__main__":
    main()
