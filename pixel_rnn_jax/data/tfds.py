"""Sets that TFDS has prepared, read without TensorFlow."""

import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core import read_only_builder

from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.data.dataset import Dataset, LazyArray, divide, image_ids
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import FORMATS

# K of sets with fewer levels than their type has values.
_LEVELS = {"binarized_mnist": 2}


def prepared(config: DataConfig) -> Any | None:
    """Returns the builder of a set that is prepared in a form with random access, or None."""
    # From the prepared files alone: the code that prepares a set often needs TensorFlow.
    data_dir = os.path.expanduser(config.data_dir) or None
    try:
        builder = read_only_builder.builder_from_files(config.name, data_dir=data_dir)
        return tfds.builder_from_directory(builder.data_dir, file_format="array_record")
    except ValueError:  # Not found, or of another format.
        return None


def open_tfds(builder: Any, name: str, split: str) -> Dataset:
    """Opens a split of a set with a feature `image` and perhaps `label`; `name` is for errors."""
    splits = list(builder.info.splits)
    return divide(name, split, splits, lambda part: _open(builder, name, part), whole=False)


def _open(builder: Any, name: str, split: str) -> Dataset:
    features: Any = dict(builder.info.features.items())
    image, label = features.get("image"), features.get("label")
    if not isinstance(image, tfds.features.Image) or image.np_dtype != np.uint8:
        raise UserError(f"{name} has no feature `image` of 8 bits, only {features}")
    shards = builder.info.splits[split].file_instructions
    files = [os.path.basename(shard.filename) for shard in shards]
    rows = [np.arange(shard.skip, shard.skip + shard.take) for shard in shards]
    # As TFDS has its ids.
    names = [f"{file}__{row}" for file, part in zip(files, rows, strict=True) for row in part]
    source = builder.as_data_source(
        split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )

    def read(key: str, indices: np.ndarray, decoders: Any = None) -> Iterator[Any]:
        only = tfds.features.FeaturesDict({key: features[key]})
        for record in source.__getitems__(indices.tolist()):
            yield only.deserialize_example_np(record, decoders=decoders)[key]

    mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}.get(image.shape[-1])

    def read_images(indices: np.ndarray) -> Iterator[np.ndarray]:
        # TFDS itself would warn that there is no OpenCV.
        contents = read("image", indices, {"image": tfds.decode.SkipDecoding()})
        for index, content in zip(indices, contents, strict=True):
            with Image.open(io.BytesIO(content), formats=FORMATS) as file:
                if file.mode.startswith("I"):  # Pillow makes white of most 16-bit greys.
                    raise UserError(f"{names[index]} of {name} has mode {file.mode!r} of Pillow")
                yield np.atleast_3d(np.asarray(file.convert(mode)))

    has_labels = isinstance(label, tfds.features.ClassLabel) and label.num_classes
    # TFDS names a class without a name by its number.
    has_names = has_labels and label.names != list(map(str, range(label.num_classes)))
    return Dataset(
        name=name,
        images=LazyArray(read_images, names),
        ids=np.concatenate(list(map(image_ids, files, rows))),
        levels=_LEVELS.get(builder.name),
        labels=LazyArray(lambda indices: read("label", indices), names) if has_labels else None,
        class_names=tuple(label.names) if has_names else (),
        file_names=names,
    )
