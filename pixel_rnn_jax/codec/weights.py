"""A trained model as one file: its architecture, its image format and its parameters.

The file is in the safetensors format; `docs/weights.md` says what its metadata and every array
mean. The same model gives the same bytes.
"""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath
from flax.traverse_util import unflatten_dict

from pixel_rnn_jax.data import ImageFormat
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.likelihoods import likelihood_for
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import atomic_write, check_storage, error_context
from pixel_rnn_jax.system.trees import by_name, check_same_types, sha256, types_of

PyTree = Any

KEY, VERSION, HEADER_BYTES = "pixel_rnn_jax", 1, 2**22


def is_exported(path: epath.PathLike) -> bool:
    """Whether a path names an exported file, which may be missing, and no workdir."""
    return os.path.isfile(path) or os.fspath(path).endswith(".safetensors")


def write(
    path: epath.PathLike, model: PixelRNN, params: PyTree, class_names: Sequence[str] = ()
) -> int:
    """Writes a model to a file, the whole of it or nothing; returns the number of bytes."""
    check_storage(path)
    content = to_bytes(model, params, class_names)
    with atomic_write(path) as file:
        file.write(content)
    return len(content)


def to_bytes(model: PixelRNN, params: PyTree, class_names: Sequence[str] = ()) -> bytes:
    """Returns the content of the file that `write` writes."""
    arrays = {name: np.asarray(leaf) for name, leaf in by_name(params).items()}
    _check_params("the parameters", model, arrays)
    image_format = ImageFormat(
        model.image_shape, model.levels, model.mean, model.std, tuple(class_names)
    )
    described = {
        "version": VERSION,
        "config": dataclasses.asdict(model.config),
        "images": dataclasses.asdict(image_format),
    }
    text = json.dumps(described | {"sha256": _digest(described, arrays)})
    return safetensors.numpy.save(arrays, metadata={KEY: text})


def read(path: epath.PathLike) -> tuple[PixelRNN, PyTree, ImageFormat]:
    """Reads the model of a file, its parameters and the format of its images."""
    check_storage(path)
    with error_context(path):
        content = epath.Path(path).read_bytes()
        if (size := int.from_bytes(content[:8], "little")) > HEADER_BYTES:
            raise ValueError(f"its header has {size:,} bytes")
        header = json.loads(content[8 : 8 + size])
        described = json.loads(header["__metadata__"][KEY])
        version, digest = described["version"], described.pop("sha256")
        arrays = safetensors.numpy.load(content)
        if version != VERSION:
            raise ValueError(f"its format has version {version}, this package reads {VERSION}")
        if digest != _digest(described, arrays):
            raise ValueError("it does not match the SHA-256 in it")
        image_format = ImageFormat.from_dict(described["images"])
        config = ModelConfig(**described["config"])
        check_size(config, image_format, types_of(arrays))
        model = image_format.model(config)
    _check_params(str(path), model, arrays)
    params = unflatten_dict({name: jnp.asarray(arrays[name]) for name in arrays}, sep="/")
    return model, params, image_format


def _digest(described: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    text = json.dumps({name: described[name] for name in ("config", "images")}, sort_keys=True)
    return sha256(arrays, hashlib.sha256(text.encode()))


def _check_params(where: str, model: PixelRNN, arrays: Mapping[str, np.ndarray]) -> None:
    """Refuses parameters, by their names, that are not finite or do not fit a model."""
    shapes = by_name(jax.eval_shape(model.init, jax.random.key(0)))
    check_same_types(where, types_of(shapes), types_of(arrays))
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{where}: {name} has values that are not finite")


def check_size(config: ModelConfig, images: ImageFormat, types: Mapping[str, str]) -> None:
    """Refuses a config that needs more parameters than there are, before a model is made of it."""
    h, head = config.features, config.head_features
    outputs = likelihood_for(config, images.levels).pixel_outputs(images.image_shape[-1])
    least = config.layers * 2 * h * h + head * (head + outputs)
    stored = sum(math.prod(json.loads(text[text.index("[") :])) for text in types.values())
    if 3 * config.layers > len(types) or least > stored:
        raise ValueError("its config has more parameters")
