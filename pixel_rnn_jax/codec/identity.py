"""What a file names: the model that decodes it, and for the fast form the machine as well."""

import dataclasses
import functools
import hashlib
import importlib.metadata
import platform
import re
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pixel_rnn_jax.codec.loop import COMPILER_OPTIONS, computed_alike
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.pixel_rnn import PixelRNN

PyTree = Any


def model_digest(model: PixelRNN, params: PyTree) -> bytes:
    """Returns a digest, 8 bytes, of the function that a model computes.

    It is over the architecture, the format of the images and the parameters in float32.
    """
    digest = hashlib.blake2b(digest_size=8)
    # Without the defaults: a field that a later version adds leaves the digest as it was.
    default = dataclasses.asdict(ModelConfig())
    fields = dataclasses.asdict(computed_alike(model.config)).items()
    changed = sorted(item for item in fields if item[1] != default[item[0]])
    units = (model.offset, model.scale) if model.scale else ()
    digest.update(repr((changed, model.image_shape, model.levels, *units)).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        digest.update(f"{jax.tree_util.keystr(path)} {leaf.shape}".encode())
        digest.update(np.asarray(leaf, "<f4").tobytes())
    return digest.digest()


def machine(device: jax.Device) -> str:
    """Returns a name of what decides the last bits; a checksum stands for its longer parts."""
    kind, details = device.device_kind, device.client.platform_version
    if device.platform == "cpu":
        kind, details = _cpu()
    details += repr(COMPILER_OPTIONS.get(device.platform))
    packages = ("jax", "jaxlib")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return f"{device.platform} {kind[:64]} #{zlib.crc32(details.encode()):08x}, {versions}"


@functools.cache
def _cpu() -> tuple[str, str]:
    """Returns the name of the processor, and its model numbers with its vector instructions."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:  # Not Linux.
        return platform.processor() or platform.machine(), platform.machine()
    first = text.split("\n\n")[0]
    name = re.search(r"^model name\s*: (.*)$", first, re.MULTILINE)
    numbers = re.findall(r"^(?:cpu family|model|stepping|CPU part)\s*: .*$", first, re.MULTILINE)
    instructions = re.findall(r"\b(?:s?sse|avx|fma|f16c|amx|asimd|sve|sme|bf16)\w*", first)
    return name[1] if name else platform.machine(), repr((numbers, sorted(set(instructions))))
