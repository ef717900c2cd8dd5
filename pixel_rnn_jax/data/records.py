"""Where images come from: the records of one split as they are stored, read by number.

scikit-learn's digits, any TFDS image set (read without TensorFlow), a folder of image files, or an
.npy or .npz array. What their values mean (levels, binarisation) is decided in `data.py`.
"""

import difflib
import importlib
import io
import os
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.errors import UserError

Read = Callable[[np.ndarray], np.ndarray]

SPLITS = ("train", "validation", "test")
# Decoding an image costs far more than copying it, so sets up to this size are decoded once.
KEEP_BYTES = 2**30
# "mnist", "downsampled_imagenet/32x32", "cifar10:3.0.2"; any other form can only be a path.
_TFDS_NAME = re.compile(r"[a-zA-Z]\w*(/[\w+.-]+)?(:[\d.*]+)?")
# TFDS sets whose features do not tell how few levels they have.
_TFDS_LEVELS = {"binarized_mnist": 2}
_IMAGE_SUFFIXES = (
    ".bmp",
    ".gif",
    ".jpeg",
    ".jpg",
    ".pgm",
    ".png",
    ".ppm",
    ".tif",
    ".tiff",
    ".webp",
)
# Pillow's modes whose values are intensities of a known number of levels (None: up to the user).
_MODE_LEVELS = {"1": 2, "L": 256, "LA": 256, "RGB": 256, "RGBA": 256, "I;16": None, "I": None}


@dataclass(frozen=True)
class Records:
    """The raw images of one split.

    Attributes:
        name: What errors call the split.
        image_shape: (H, W, C).
        dtype: What `read` returns; integers or booleans.
        levels: K if the set tells it, else None.
        keys: Two integers for each record, [N, 2], by which it is known whatever part of the set is
            read: record 50,000 of "train" is record 0 of "train[50000:]" and has the same key.
        read: Record numbers [B] to images [B, H, W, C]; safe to call from several threads.
        labels: The same to classes [B]; None where the set has no labels.
        classes: The number of classes, at least; 0 without labels.
    """

    name: str
    image_shape: tuple[int, int, int]
    dtype: np.dtype
    levels: int | None
    keys: np.ndarray
    read: Read
    labels: Read | None = None
    classes: int = 0


def open_records(config: DataConfig, split: str) -> Records:
    """Opens a split of the set that `config.name` names.

    Args:
        config: `name` and `data_dir` are used.
        split: A TFDS split, a subfolder, or a key of an .npz file; "train", "validation" or "test"
            of a set that is not divided, which is then divided once and for all by a fixed
            permutation (digits 1297/250/250, others 80/10/10 percent), or "all" of it.

    Raises:
        UserError: There is no such set or split, it is not prepared, or it does not hold images of
            one size with integer values.
    """
    path = Path(config.name).expanduser()
    if config.name == "digits":
        return _digits(config, split)
    if path.suffix in (".npy", ".npz"):
        return _array_file(path, config, split)
    if not _TFDS_NAME.fullmatch(config.name):
        return _folder(path, config, split)
    builder = _tfds_builder(config)
    if builder is None:
        problem = _why_no_builder(config)
        if problem is not None:
            raise problem
        return _folder(path, config, split)
    return _tfds(builder, config, split)


def require(module: str, package: str) -> Any:
    """Imports a package where it is needed, so that other uses do without it.

    Raises:
        UserError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise UserError(
            f"this needs the module {error.name}: install it with `pip install {package}`"
        ) from error


# ---------------------------------------------------------------------------------------- arrays


def _digits(config: DataConfig, split: str) -> Records:
    datasets = require("sklearn.datasets", "scikit-learn")
    digits = datasets.load_digits()
    images = digits.images.astype(np.uint8)
    rows = _part(config, split, len(images), held_out=250)
    return _array(images, rows, split, config, levels=17, labels=digits.target)


def _array_file(path: Path, config: DataConfig, split: str) -> Records:
    key, labels = "", None
    try:
        loaded = np.load(path, mmap_mode="r")
        if path.suffix == ".npz":
            with loaded:
                key = _npz_key(loaded.files, config, split)
                images = loaded[key]
                labels = _npz_labels(loaded, key, len(images))
                loaded = images
    except FileNotFoundError:
        raise UserError(f"data.name {config.name!r}: there is no such file") from None
    except UserError:
        raise
    except Exception as error:  # numpy, zipfile and zlib each have their own for a damaged file.
        raise UserError(
            f"data.name {config.name!r} cannot be read as an array: {_reason(error)}"
        ) from error
    if loaded.ndim not in (3, 4) or 0 in loaded.shape:
        raise UserError(
            f"data.name {config.name!r} must hold an array of shape [N, H, W] or [N, H, W, C], "
            f"got {list(loaded.shape)}"
        )
    rows = np.arange(len(loaded)) if key == split else _part(config, split, len(loaded))
    return _array(loaded, rows, key, config, labels=labels)


def _npz_labels(arrays: Any, key: str, count: int) -> np.ndarray | None:
    """Returns the classes of the images `key`: an array `labels`, or `train_labels` and so on.

    What does not hold one integer from 0 on for each image is something else.
    """
    name = f"{key}_labels" if f"{key}_labels" in arrays.files else "labels"
    try:
        labels = np.asarray(arrays[name])
    except (KeyError, ValueError):  # There are none, or they are Python objects.
        return None
    fits = labels.shape == (count,) and labels.dtype.kind in "iu" and not (labels < 0).any()
    return labels if fits and count else None


def _npz_key(keys: list[str], config: DataConfig, split: str) -> str:
    """Returns the array to read: the split's own, or the only one, which is then divided."""
    keys = [key for key in keys if not key.endswith("labels")]
    if split in keys:
        return split
    if set(SPLITS) & set(keys):
        raise _no_split(config, split, keys)
    if len(keys) != 1:
        raise UserError(
            f"data.name {config.name!r} must hold one array, or arrays named train, validation and "
            f"test, got {', '.join(keys) or 'none'}"
        )
    return keys[0]


def _array(
    images: np.ndarray,
    rows: np.ndarray,
    key: str,
    config: DataConfig,
    *,
    levels: int | None = None,
    labels: np.ndarray | None = None,
) -> Records:
    """Returns the records `rows` of an array [N, H, W] or [N, H, W, C] that may lie on disk."""
    if images.dtype.kind not in "biu":
        raise UserError(
            f"data.name {config.name!r} must hold integers from 0 to K-1, got {images.dtype}: turn "
            "the values into levels first, for example np.round(255 * x).astype(np.uint8)"
        )
    shape = (*images.shape[1:], 1)[:3]
    return Records(
        name=_name(config, key),
        image_shape=shape,
        dtype=images.dtype,
        levels=levels or _dtype_levels(images.dtype),
        keys=_keys(key, rows),
        read=lambda indices: np.asarray(images[rows[indices]]).reshape(-1, *shape),
        labels=None if labels is None else lambda indices: labels[rows[indices]],
        classes=0 if labels is None else int(labels.max()) + 1,
    )


# ----------------------------------------------------------------------------------------- files


def _folder(path: Path, config: DataConfig, split: str) -> Records:
    if not path.is_dir():
        raise UserError(f"data.name {config.name!r}: there is no such folder")
    image_lib = require("PIL.Image", "pillow")
    folders = [folder.name for folder in path.iterdir() if folder.is_dir()]
    if split in folders:
        files = _image_files(path / split, config)
        rows = np.arange(len(files))
    elif set(SPLITS) & set(folders):
        raise _no_split(config, split, folders)
    else:
        files = _image_files(path, config)
        rows = _part(config, split, len(files))

    def header(file: Path) -> tuple[tuple[int, int], str]:
        try:
            with image_lib.open(file) as image:
                return (image.height, image.width), image.mode
        except OSError as error:
            raise UserError(f"{file} cannot be read as an image: {_reason(error)}") from error

    size, mode = header(files[0])
    if mode not in _MODE_LEVELS:
        raise UserError(
            f"{files[0]} has mode {mode!r}, whose values are not intensities: convert the images "
            "to grey or RGB first"
        )
    for row in rows:
        if (found := header(files[row])) != (size, mode):
            raise UserError(
                f"all images of data.name {config.name!r} must have one size and mode: "
                f"{files[row]} is {found[0][0]}x{found[0][1]} {found[1]!r}, but {files[0]} is "
                f"{size[0]}x{size[1]} {mode!r}"
            )
    first = _decode(files[0], str(files[0]))
    shape = first.shape

    def read(indices: np.ndarray) -> np.ndarray:
        chosen = [files[row] for row in rows[indices]]
        return np.stack([_sized(_decode(file, str(file)), shape, str(file)) for file in chosen])

    return Records(
        name=_name(config, split),
        image_shape=shape,
        dtype=first.dtype,
        levels=_MODE_LEVELS[mode],
        keys=_keys(split if split in folders else "", rows),
        read=_kept(read, len(rows), shape, first.dtype),
    )


def _image_files(folder: Path, config: DataConfig) -> list[Path]:
    files = sorted(
        file
        for file in folder.rglob("*")
        if file.suffix.lower() in _IMAGE_SUFFIXES and file.is_file()
    )
    if not files:
        raise UserError(
            f"data.name {config.name!r}: there are no image files in {folder} "
            f"({', '.join(_IMAGE_SUFFIXES)})"
        )
    return files


def _decode(file: Path | io.BytesIO, name: str) -> np.ndarray:
    """Returns the pixels [H, W, C] of an image file."""
    image_lib = require("PIL.Image", "pillow")
    try:
        with image_lib.open(file) as image:
            pixels = np.asarray(image)
    except (OSError, SyntaxError) as error:  # Pillow calls a damaged PNG a syntax error.
        raise UserError(f"{name} cannot be read as an image: {_reason(error)}") from error
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _sized(image: np.ndarray, shape: tuple[int, ...], name: str) -> np.ndarray:
    if image.shape != shape:
        raise UserError(
            f"all images of a set must have one size: {name} is "
            f"{'x'.join(map(str, image.shape))}, not {'x'.join(map(str, shape))}"
        )
    return image


# ------------------------------------------------------------------------------------------ TFDS


def _tfds_builder(config: DataConfig) -> Any | None:
    """Returns the TFDS builder of a prepared set, or None if there is none of that name.

    It is built from the prepared files alone: the code that prepares a set often needs TensorFlow.
    """
    tfds = require("tensorflow_datasets", "tensorflow-datasets")
    read_only = require("tensorflow_datasets.core.read_only_builder", "tensorflow-datasets")
    data_dir = os.path.expanduser(config.data_dir) or None
    try:
        builder = read_only.builder_from_files(config.name, data_dir=data_dir)
    except tfds.core.DatasetNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"data.name {config.name!r} cannot be opened: {_reason(error)}") from error
    try:
        return tfds.builder_from_directory(builder.data_dir, file_format="array_record")
    except ValueError:
        raise UserError(
            f"data.name {config.name!r} is prepared as {builder.info.file_format.value} in "
            f"{builder.data_dir}, which cannot be read in any order: prepare it in another "
            f"directory with {_how_to_prepare(config.name, 'DIR')}, and set data.data_dir to DIR"
        ) from None


def _how_to_prepare(name: str, data_dir: str) -> str:
    # Not `tfds build`: that command does not start without apache-beam.
    where = f"data_dir={data_dir!r}, " if data_dir else ""
    return (
        "`pip install 'pixel-rnn-jax[prepare]'` and "
        '`python -c "import tensorflow_datasets as tfds; '
        f"tfds.builder({name!r}, {where}file_format='array_record').download_and_prepare()\"`"
    )


def _why_no_builder(config: DataConfig) -> UserError | None:
    """Returns what is wrong with a name that is not prepared, or None if it is a folder's."""
    tfds = require("tensorflow_datasets", "tensorflow-datasets")
    known = tfds.list_builders(with_community_datasets=False)
    where = config.data_dir or "the default directory of TFDS"
    name = re.split("[/:]", config.name)[0]
    if name in known:
        return UserError(
            f"data.name {config.name!r} is not prepared in {where}: prepare it once with "
            f"{_how_to_prepare(config.name, config.data_dir)}, or set data.data_dir to where it is"
        )
    if Path(config.name).is_dir():
        return None
    # A set that is prepared by its user alone has a configuration which TFDS takes by default only
    # if its metadata say so.
    configs = Path(config.data_dir, name).expanduser().glob("[!.]*") if config.data_dir else ()
    near = sorted(f"{name}/{folder.name}" for folder in configs)
    near = near or difflib.get_close_matches(name, known, n=1)
    return UserError(
        f"data.name {config.name!r} is not a TFDS set that is known or prepared in "
        f"{where}, nor a folder or an .npy or .npz file"
        + (f"; did you mean {near[0]!r}?" if near else "")
    )


def _tfds(builder: Any, config: DataConfig, split: str) -> Records:
    tfds = require("tensorflow_datasets", "tensorflow-datasets")
    features = builder.info.features
    if "image" not in features:
        raise UserError(
            f"data.name {config.name!r} has no `image` feature, only {', '.join(features)}: choose "
            "a set of images"
        )
    feature = features["image"]
    encoded = isinstance(feature, tfds.features.Image)
    if not encoded and not (
        isinstance(feature, tfds.features.Tensor) and len(feature.shape) in (2, 3)
    ):
        raise UserError(
            f"the `image` feature of data.name {config.name!r} is a {type(feature).__name__}, not "
            "one image: choose a set of images"
        )
    dtype = np.dtype(feature.np_dtype)
    if dtype.kind not in "biu":
        raise UserError(
            f"the `image` feature of data.name {config.name!r} has values of type {dtype}: choose "
            "a set with integer values"
        )
    try:
        keys = [
            _keys(os.path.basename(shard.filename), np.arange(shard.skip, shard.skip + shard.take))
            for shard in builder.info.splits[split].file_instructions
        ]
    except ValueError:
        raise _no_split(config, split, builder.info.splits) from None
    if not keys:
        raise UserError(f"{_name(config, split)} is empty: choose a larger part")
    source = builder.as_data_source(
        split=split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    # The other features are not decoded, and Pillow is called here because TFDS would print a
    # warning that it has no OpenCV and refuse 16-bit images.
    image_only = tfds.features.FeaturesDict({"image": feature})
    decoders = {"image": tfds.decode.SkipDecoding()} if encoded else None

    def decode(record: bytes, index: int) -> np.ndarray:
        value = image_only.deserialize_example_np(record, decoders=decoders)["image"]
        if not encoded:
            return value[..., None] if value.ndim == 2 else value
        image = _decode(io.BytesIO(value), f"record {index} of {_name(config, split)}")
        channels = feature.shape[-1]
        return np.repeat(image, channels, -1) if image.shape[-1] == 1 and channels else image

    def labels(indices: np.ndarray) -> np.ndarray:
        label_only = tfds.features.FeaturesDict({"label": features["label"]})
        records = source.__getitems__(indices.tolist())
        return np.array([label_only.deserialize_example_np(each)["label"] for each in records])

    labelled = "label" in features and isinstance(features["label"], tfds.features.ClassLabel)

    # downsampled_imagenet does not declare its size: the first image tells it.
    shape = decode(source[0], 0).shape

    def read(indices: np.ndarray) -> np.ndarray:
        records = source.__getitems__(indices.tolist())
        images = np.empty((len(indices), *shape), dtype)
        for row, (index, record) in enumerate(zip(indices, records, strict=True)):
            name = f"record {index} of {_name(config, split)}"
            images[row] = _sized(decode(record, index), shape, name)
        return images

    return Records(
        name=_name(config, split),
        image_shape=shape,
        dtype=dtype,
        levels=_TFDS_LEVELS.get(builder.name, _dtype_levels(dtype)),
        keys=np.concatenate(keys),
        read=_kept(read, len(source), shape, dtype),
        labels=_kept(labels, len(source), (), np.dtype(int)) if labelled else None,
        classes=features["label"].num_classes if labelled else 0,
    )


# --------------------------------------------------------------------------------- shared by all


def _name(config: DataConfig, split: str) -> str:
    return f"split {split!r} of data.name {config.name!r}"


def _reason(error: Exception) -> str:
    """Returns the first sentence of an error of another library."""
    return re.split(r"\.(?:\s|$)|\n", str(error))[0]


def _no_split(config: DataConfig, split: str, existing: Iterable[str]) -> UserError:
    return UserError(
        f"data.name {config.name!r} has no split {split!r}: choose from "
        f"{', '.join(sorted(existing))} (or of a TFDS set a part such as 'train[:90%]') with "
        "data.train_split, data.validation_split, data.test_split or --split"
    )


def _dtype_levels(dtype: np.dtype) -> int | None:
    return {"bool": 2, "uint8": 256}.get(dtype.name)


def _keys(container: str, rows: np.ndarray) -> np.ndarray:
    """Returns `Records.keys` of the records `rows` of a file, an array or a folder."""
    return np.stack([np.full(len(rows), zlib.crc32(container.encode())), rows], axis=1)


def _part(config: DataConfig, split: str, count: int, held_out: int | None = None) -> np.ndarray:
    """Returns the records that a split of a set has which is not divided.

    The permutation sorts the raw output of a bit generator, which NumPy promises never to change.
    """
    if split == "all":
        return np.arange(count)
    if split not in SPLITS:
        raise _no_split(config, split, ("all", *SPLITS))
    held_out = held_out or max(1, count // 10)
    if count < 3:
        raise UserError(
            f"data.name {config.name!r} must have at least 3 images to be divided into train, "
            f"validation and test, got {count}"
        )
    order = np.argsort(np.random.PCG64(0).random_raw(count), kind="stable")
    train, validation, test = np.split(order, [count - 2 * held_out, count - held_out])
    return np.sort({"train": train, "validation": validation, "test": test}[split])


def _kept(read: Read, count: int, shape: tuple[int, ...], dtype: np.dtype) -> Read:
    """Returns `read` with a memory of what it has read, unless that would be too large."""
    if count * int(np.prod(shape)) * dtype.itemsize > KEEP_BYTES:
        return read
    images = np.empty((count, *shape), dtype)
    known = np.zeros(count, bool)

    def remembering(indices: np.ndarray) -> np.ndarray:
        missing = indices[~known[indices]]
        if missing.size:
            images[missing] = read(missing)
            known[missing] = True  # Only now, as other threads may be reading.
        return images[indices]

    return remembering
