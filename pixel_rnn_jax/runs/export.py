"""A trained model as one file: its architecture, its image format and its parameters.

The file is in the safetensors format: a header in JSON, then the arrays. `docs/weights.md` says
what every array means. The metadata of the header, which are strings, are

    format            "pixel-rnn-jax"
    format_version    "1"
    config            the `ModelConfig` as JSON
    images            the `ImageFormat` as JSON
    digest            SHA-256 of the two and of all arrays

The same model gives the same bytes.
"""

import dataclasses
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from etils import epath
from flax.traverse_util import unflatten_dict
from safetensors import SafetensorError

from pixel_rnn_jax import outputs
from pixel_rnn_jax.config import ModelConfig, from_config_dict
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.names import by_name, some
from pixel_rnn_jax.runtime import processes, storage

PyTree = Any
Arrays = Mapping[str, np.ndarray]

FORMAT, VERSION = "pixel-rnn-jax", 1
DTYPES = {"float32": "F32", "float64": "F64"}
"""The types of parameters, and what safetensors calls them."""
LENGTH = 8
"""Bytes before the header, which are its length."""
NAMED = 3
"""How many parameters an error names."""


def is_exported(path: epath.PathLike) -> bool:
    """Whether a path is that of a file, which may be missing, and not that of a workdir."""
    suffix = os.fspath(path).endswith(".safetensors")
    return os.path.isfile(path) or (suffix and not os.path.isdir(path))


def write(
    path: epath.PathLike, model: PixelRNN, params: PyTree, class_names: Sequence[str] = ()
) -> int:
    """Writes a model to a file, which is then either the old one or the whole new one.

    Returns:
        The number of bytes that are written.

    Raises:
        UserError: The parameters do not fit the model or are not finite; or the file cannot be
            written.
    """
    content, target = to_bytes(model, params, class_names), epath.Path(path)
    storage.check(path)
    if "://" in os.fspath(path):
        if target.is_dir():
            raise UserError(f"{path} is a folder: give the name of a file")
        with storage.writing(path):
            storage.write_atomically(target, content)
    else:
        with outputs.writing(os.fspath(path)) as file:  # Which keeps links and devices.
            file.write(content)
    return len(content)


def to_bytes(model: PixelRNN, params: PyTree, class_names: Sequence[str] = ()) -> bytes:
    """Returns what `write` writes."""
    arrays = {name: np.asarray(leaf) for name, leaf in sorted(by_name(params).items())}
    _check_params(model, arrays)
    image_format = ImageFormat(
        model.image_shape, model.levels, model.offset, model.scale, tuple(class_names)
    )
    config, images = json.dumps(dataclasses.asdict(model.config)), image_format.to_json()
    metadata = {
        "format": FORMAT,
        "format_version": str(VERSION),
        "config": config,
        "images": images,
        "digest": digest(config, images, arrays),
    }
    header: dict[str, Any] = {"__metadata__": metadata}
    data = [_little_endian(array) for array in arrays.values()]
    end = 0
    for (name, array), part in zip(arrays.items(), data, strict=True):
        start, end = end, end + len(part)
        kind, shape = DTYPES[array.dtype.name], list(array.shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [start, end]}
    # By hand, since safetensors writes the metadata in a random order.
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # The data are aligned.
    return b"".join([len(text).to_bytes(LENGTH, "little"), text, *data])


def read(path: epath.PathLike) -> tuple[PixelRNN, PyTree, tuple[str, ...]]:
    """Reads the model of a file, its parameters and the names of its classes.

    Raises:
        UserError: There is no such file; it is damaged, of a later version or of something else; or
            its parameters do not fit its architecture or are not finite.
    """
    processes.check()
    storage.check(path)
    content = _read_bytes(path)
    metadata = _metadata(path, content)
    try:
        config, images = metadata["config"], metadata["images"]
        arrays = safetensors.numpy.load(content)
        intact = metadata["digest"] == digest(config, images, arrays)
    except (SafetensorError, KeyError) as error:  # KeyError also for a type NumPy does not have.
        raise _damage(path, "its header does not fit the rest") from error
    if not intact:
        raise _damage(path, "it does not have the digest in its header")
    try:
        image_format = ImageFormat.from_json(images)
        model = image_format.model(_model_config(config))
        _check_params(model, arrays)
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no model that this version can use: {error}") from error
    params = unflatten_dict({name: jnp.asarray(arrays[name]) for name in arrays}, sep="/")
    return model, params, image_format.class_names


def digest(config: str, images: str, arrays: Arrays) -> str:
    """Returns the digest of the texts and arrays of a file, in hexadecimal digits."""
    found = hashlib.sha256(f"{config}\n{images}\n".encode())
    for name, array in sorted(arrays.items()):
        found.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        found.update(_little_endian(array))
    return found.hexdigest()


def _little_endian(array: np.ndarray) -> bytes:
    return array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()


def _check_params(model: PixelRNN, arrays: Arrays) -> None:
    """Raises a `UserError` unless parameters, by their names, are finite and fit a model."""
    shapes = by_name(jax.eval_shape(model.init, jax.random.key(0)))
    expected = {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in shapes.items()}
    found = {name: f"{array.dtype}{list(array.shape)}" for name, array in arrays.items()}
    others = [
        f"{name} is {found[name]} instead of {expected[name]}"
        for name in sorted(expected.keys() & found.keys())
        if found[name] != expected[name]
    ]
    mistakes = [
        f"{some(names, NAMED)}{said}"
        for names, said in (
            (sorted(expected.keys() - found.keys()), " missing"),
            (sorted(found.keys() - expected.keys()), " left over"),
            (others, ""),
        )
        if names
    ]
    if mistakes:
        raise UserError(f"the parameters do not fit the architecture: {'; '.join(mistakes)}")
    wrong = [name for name, array in arrays.items() if not np.isfinite(array).all()]
    if wrong:
        raise UserError(
            f"the parameters are not finite: {some(wrong, NAMED)}; train the model again"
        )


def _read_bytes(path: epath.PathLike) -> bytes:
    try:
        return epath.Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}") from error
    except storage.errors() as error:
        raise UserError(f"{path} cannot be read: {storage.reason(error)}") from error


def _metadata(path: epath.PathLike, content: bytes) -> dict[str, str]:
    """Returns the metadata of a file that this version reads; the rest may be damaged."""
    end = LENGTH + int.from_bytes(content[:LENGTH], "little")
    try:
        header = json.loads(content[LENGTH:end])
        metadata = header.get("__metadata__", {})
        name, version = metadata.get("format"), str(metadata.get("format_version"))
    except (ValueError, AttributeError, RecursionError) as error:
        if content[LENGTH : LENGTH + 1] == b"{":
            raise _damage(path, "its header cannot be read") from error
        raise UserError(
            f"{path} is not a safetensors file: give one that `save` or the command `export` wrote"
        ) from error
    if name != FORMAT:
        raise UserError(
            f"{path} holds something else than a model of {FORMAT}: give a file that `save` or the "
            "command `export` wrote"
        )
    if not version.isdecimal() or not int(version):
        raise _damage(path, "its header cannot be read")
    if int(version) > VERSION:
        raise UserError(
            f"{path} has version {version} of the format, and this version of {FORMAT} reads "
            f"versions up to {VERSION}: install a later one"
        )
    return metadata


def _model_config(text: str) -> ModelConfig:
    """Returns the config that a text of JSON holds; a field that is not in it has its default."""
    values = json.loads(text)
    known = {field.name for field in dataclasses.fields(ModelConfig)}
    if unknown := sorted({*values} - known):
        raise UserError(
            f"a later version of {FORMAT} wrote it, with fields of the config that this one does "
            f"not have: {some(unknown, NAMED)}"
        )
    return from_config_dict({"model": values}).model


def _damage(path: epath.PathLike, how: str) -> UserError:
    return UserError(f"{path} is damaged or cut off ({how}): copy or export it again")
