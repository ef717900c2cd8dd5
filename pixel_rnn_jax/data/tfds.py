"""Sets that TFDS has prepared, read without TensorFlow."""

import difflib
import io
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.data import records
from pixel_rnn_jax.data.folder import pixels
from pixel_rnn_jax.errors import UserError, first_sentence
from pixel_rnn_jax.image_files import loses_digits, open_image
from pixel_rnn_jax.paths import expanded

# K of sets with fewer levels than their type has values.
_LEVELS = {"binarized_mnist": 2}


def open_tfds(config: DataConfig, split: str) -> records.Records | None:
    """Opens a split of a prepared TFDS set; None if the name is that of a folder instead."""
    builder = _builder(config)
    if builder is None:
        return None
    features = builder.info.features
    name = f"split {split!r} of data.name {config.name!r}"
    feature, dtype = _image_feature(features, config)
    encoded = isinstance(feature, tfds.features.Image)
    keys, files = _record_keys(builder, config, split)
    source = builder.as_data_source(
        split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def reader(key: str, decoders: Any = None) -> Callable[[np.ndarray], list[Any]]:
        """Returns a function that decodes one feature of records."""
        only = tfds.features.FeaturesDict({key: features[key]})
        return lambda indices: [
            only.deserialize_example_np(record, decoders=decoders)[key]
            for record in source.__getitems__(indices.tolist())
        ]

    # TFDS itself would warn that there is no OpenCV, and refuse 16-bit images.
    stored = reader("image", {"image": tfds.decode.SkipDecoding()} if encoded else None)

    def decode(value: Any, record: str) -> np.ndarray:
        if not encoded:
            return value[..., None] if value.ndim == 2 else value
        return _decoded(value, record, dtype, feature.shape[-1])

    # From the first image, since downsampled_imagenet does not declare its size.
    shape = decode(stored(np.arange(1))[0], f"record 0 of {name}").shape

    def read(indices: np.ndarray) -> np.ndarray:
        images = np.empty((len(indices), *shape), dtype)
        for row, value in enumerate(stored(indices)):
            record = f"record {indices[row]} of {name}"
            image = decode(value, record)
            if image.shape != shape:
                raise UserError(
                    f"all images of a set must have one size: {record} is "
                    f"{'x'.join(map(str, image.shape))}, not {'x'.join(map(str, shape))}"
                )
            images[row] = image
        return images

    labels, (classes, class_names) = None, _classes(features)
    if classes:
        label = reader("label")
        labels = records.cached(lambda i: np.array(label(i)), len(source), (), np.dtype(int))
    return records.Records(
        name=name,
        image_shape=shape,
        dtype=dtype,
        keys=keys,
        read=records.cached(read, len(source), shape, dtype),
        declared_levels=_LEVELS.get(builder.name),
        labels=labels,
        classes=classes,
        class_names=class_names,
        file=lambda index: f"{files[keys[index, 0]]}__{keys[index, 1]}",  # As TFDS has its ids.
    )


def _decoded(content: bytes, record: str, dtype: np.dtype, channels: int | None) -> np.ndarray:
    """Decodes an image as TensorFlow does; TFDS keeps the files that it was given."""
    with open_image(io.BytesIO(content), record) as image:
        if dtype.itemsize > 1 and loses_digits(image):
            raise UserError(f"{record} has colours of 16 bits, which cannot be read")
        plain = {"1": "L", "P": "L" if channels == 1 else "RGB"}.get(image.mode)
        found = pixels(image.convert(plain) if plain else image)
    count = found.shape[-1]
    if count not in (1, channels or count):
        raise UserError(f"{record} has {count} channels, but the set declares {channels}")
    return np.repeat(found, (channels or count) // count, -1)


def _builder(config: DataConfig) -> Any | None:
    """Returns the builder of a prepared set, or None if there is only a folder of that name."""
    # From the prepared files alone: the code that prepares a set often needs TensorFlow.
    data_dir = expanded(config.data_dir, "data.data_dir") or None
    try:
        builder = read_only_builder.builder_from_files(config.name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        _check_folder(config)
        return None
    except ValueError as error:
        reason = first_sentence(error)
        raise UserError(f"data.name {config.name!r} cannot be opened: {reason}") from error
    try:
        return tfds.builder_from_directory(builder.data_dir, file_format="array_record")
    except ValueError:
        raise UserError(
            f"data.name {config.name!r} is prepared as {builder.info.file_format.value} in "
            f"{builder.data_dir}, which cannot be read in any order: prepare it in another "
            f"directory with {_how_to_prepare(config.name, 'DIR')}, and set data.data_dir to DIR"
        ) from None


def _check_folder(config: DataConfig) -> None:
    """Raises an error for a set that is not prepared, unless there is a folder of that name."""
    known = tfds.list_builders(with_community_datasets=False)
    where = config.data_dir or "the default directory of TFDS"
    name = re.split("[/:]", config.name)[0]
    if name in known:
        here = f"; ./{config.name} is the folder of that name" if Path(config.name).is_dir() else ""
        raise UserError(
            f"data.name {config.name!r} is not prepared in {where}: prepare it once with "
            f"{_how_to_prepare(config.name, config.data_dir)}, or name the folder where it is with "
            f"--config.data.data_dir, or with --data of evaluate and complete{here}"
        )
    if Path(config.name).is_dir():
        return
    near = difflib.get_close_matches(name, known, n=1)
    raise UserError(
        f"data.name {config.name!r} is not a TFDS set that is known or prepared in {where}, nor a "
        "folder or an .npy or .npz file" + (f"; did you mean {near[0]!r}?" if near else "")
    )


def _how_to_prepare(name: str, data_dir: str) -> str:
    # Not `tfds build`: that command does not start without apache-beam.
    where = f"data_dir={data_dir!r}, " if data_dir else ""
    return (
        "`pip install 'pixel-rnn-jax[prepare]'` and "
        '`python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, {where}file_format='array_record').download_and_prepare()\"`"
    )


def _image_feature(features: Any, config: DataConfig) -> tuple[Any, np.dtype]:
    """Returns the feature `image`, one image of integers, and its dtype."""
    if "image" not in features:
        raise UserError(
            f"data.name {config.name!r} has no `image` feature, only {', '.join(features)}: choose "
            "a set of images"
        )
    feature, where = features["image"], f"the `image` feature of data.name {config.name!r}"
    if not isinstance(feature, tfds.features.Image) and not (
        isinstance(feature, tfds.features.Tensor) and len(feature.shape) in (2, 3)
    ):
        kind = type(feature).__name__
        raise UserError(f"{where} is a {kind}, not one image: choose a set of images")
    dtype = np.dtype(feature.np_dtype)
    if dtype.kind not in "biu":
        raise UserError(f"{where} has values of type {dtype}: choose a set with integer values")
    return feature, dtype


def _classes(features: Any) -> tuple[int, tuple[str, ...]]:
    """Returns the number of classes, 0 without labels, and their names if they have any."""
    if "label" not in features:
        return 0, ()
    label = features["label"]
    if not isinstance(label, tfds.features.ClassLabel) or not label.num_classes:
        return 0, ()
    names, numbers = tuple(label.names), tuple(map(str, range(label.num_classes)))
    return len(names), names if names != numbers else ()  # TFDS names a class by its number.


def _record_keys(builder: Any, config: DataConfig, split: str) -> tuple[np.ndarray, dict[int, str]]:
    """Returns `Records.keys`, from the file of each record and its row there; and the files."""
    try:
        shards = builder.info.splits[split].file_instructions
    except ValueError:
        name = f"data.name {config.name!r}"
        raise records.no_split(name, split, builder.info.splits) from None
    if not shards:
        raise UserError(
            f"split {split!r} of data.name {config.name!r} is empty: choose a larger part"
        )
    rows = [np.arange(shard.skip, shard.skip + shard.take) for shard in shards]
    names = [os.path.basename(shard.filename) for shard in shards]
    keys = list(map(records.record_keys, names, rows))
    files = {int(part[0, 0]): name for name, part in zip(names, keys, strict=True)}
    return np.concatenate(keys), files
