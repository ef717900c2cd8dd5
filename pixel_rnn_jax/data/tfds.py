"""Sets that TFDS has prepared, read without TensorFlow."""

import io
import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import read_only_builder

from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.data.dataset import Dataset, LazyArray, image_ids
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.files import open_image

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


def open_tfds(builder: Any | None, config: DataConfig, split: str) -> Dataset:
    """Opens a split, in TFDS's syntax, of a set with the features `image` and perhaps `label`.

    Raises:
        UserError: The set is not prepared, the builder being None; or there is no such split or
            feature.
    """
    name = f"data.name {config.name!r}"
    if builder is None:
        where = f"data_dir={config.data_dir!r}, " if config.data_dir else ""
        # Not `tfds build`: that command does not start without apache-beam.
        raise UserError(
            f"{name} is no folder or file, and no TFDS set that is prepared as array_record in "
            f"data.data_dir {config.data_dir!r}: run "
            "`pip install 'tensorflow>=2.20' importlib_resources` and "
            f'`python -c "import tensorflow_datasets as tfds; tfds.builder({config.name!r}, '
            f"{where}file_format='array_record').download_and_prepare()\"`"
        )
    features = dict(builder.info.features.items())
    if "image" not in features:
        raise UserError(f"{name} has no feature `image`, only {', '.join(features)}")
    feature: Any = features["image"]
    label: Any = features.get("label")
    encoded = isinstance(feature, tfds.features.Image)
    try:
        shards = builder.info.splits[split].file_instructions
    except ValueError as error:
        raise UserError(f"{name} has no split {split!r}: {error}") from error
    if not shards:
        raise UserError(f"{name} has no images in {split!r}")
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

    def read_images(indices: np.ndarray) -> Iterator[np.ndarray]:
        # TFDS itself would warn that there is no OpenCV, and refuse 16-bit images.
        skip = {"image": tfds.decode.SkipDecoding()} if encoded else None
        for index, value in zip(indices, read("image", indices, skip), strict=True):
            image = _decode(value, f"{names[index]} of {name}", feature) if encoded else value
            yield np.atleast_3d(image)

    class_names: tuple[str, ...] = ()
    has_labels = isinstance(label, tfds.features.ClassLabel) and label.num_classes
    if has_labels and label.names != [str(number) for number in range(label.num_classes)]:
        class_names = tuple(label.names)  # TFDS names a class by its number.
    return Dataset(
        name=f"split {split!r} of {name}",
        images=LazyArray(read_images, names),
        ids=np.concatenate(list(map(image_ids, files, rows))),
        levels=_LEVELS.get(builder.name),
        labels=LazyArray(lambda indices: read("label", indices), names) if has_labels else None,
        class_names=class_names,
        file_names=names,
    )


def _decode(content: bytes, name: str, feature: Any) -> np.ndarray:
    """Decodes an image as TensorFlow does; TFDS keeps the files that it was given."""
    channels = feature.shape[-1]
    with open_image(io.BytesIO(content)) as image:
        mode = image.mode
        plain = {"1": "L", "P": "L" if channels == 1 else "RGB"}.get(mode, mode)
        array = np.atleast_3d(np.asarray(image.convert(plain))).astype(feature.np_dtype)
    if array.shape[-1] == 1 and channels:
        array = np.repeat(array, channels, -1)
    deep = array.itemsize > 1 and not mode.startswith("I")  # Pillow reads 8 of 16 bits of colours.
    if deep or (channels and array.shape[-1] != channels):
        raise UserError(
            f"{name} has mode {mode!r} of Pillow, not {channels} channels of {array.dtype}"
        )
    return array
