"""Sets that are files: scikit-learn's digits, folders of images, and .npy and .npz files."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath
from PIL import Image

from pixel_rnn_jax.config import DataConfig
from pixel_rnn_jax.data.dataset import (
    Dataset,
    Images,
    LazyArray,
    image_ids,
    number_labels,
    open_split_of,
)
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.files import SUFFIXES, open_image

# "mnist", "downsampled_imagenet/32x32", "cifar10:3.0.2"; any other form is a path.
_TFDS_NAME = re.compile(r"[a-zA-Z]\w*(/[\w+.-]+)?(:[\d.*]+)?")
# Keys of an .npz file whose arrays are not images.
_NOT_IMAGES = re.compile(r".*labels|(.*_)?condition|class_names|names")
# Pillow's modes whose values are intensities.
_MODES = ("1", "L", "LA", "RGB", "RGBA", "I;16", "I;16B", "I")
# Tags of EXIF and TIFF.
_ORIENTATION, _BITS_PER_SAMPLE = 274, 258


def open_dataset(config: DataConfig, split: str) -> Dataset:
    """Opens a split of the set that `config.name` and `config.data_dir` name, as it is stored.

    A split is one of TFDS, a subfolder, or a key of an .npz file. An undivided set has the splits
    "train", "validation" and "test", by a fixed permutation (digits 1297/250/250, others 80/10/10
    percent), and "all". Of each a part may be taken, as in "test[:300]".

    Raises:
        UserError: There is no such set or split, it is not prepared, or it does not hold images.
    """
    name, path = f"data.name {config.name!r}", Path(config.name).expanduser()
    if config.name == "digits":
        return _open_digits(name, split)
    if _TFDS_NAME.fullmatch(config.name) and path.suffix not in (".npy", ".npz"):
        from pixel_rnn_jax.data import tfds  # TFDS is imported only where it is used.

        if (builder := tfds.prepared(config)) is not None:
            return tfds.open_tfds(builder, name, split)
        if not path.is_dir():
            raise UserError(tfds.how_to_prepare(config))
    return open_path(path, name, split)


def open_path(path: Path, name: str, split: str | None = None) -> Dataset:
    """Opens all images, or a split, of a folder, an image file, or an .npy or .npz file.

    Raises:
        UserError: There is no such path or split, or it holds no images; `name` says which.
    """
    if not path.exists():
        raise UserError(f"{name}: there is no such file or folder")
    array = path.suffix in (".npy", ".npz")
    if not (array or path.is_dir() or path.suffix.lower() in SUFFIXES):
        endings = ", ".join(SUFFIXES)
        raise UserError(f"{name} must be a folder, an .npy or .npz file, or an image ({endings})")
    read = _open_array_file if array else _open_image_files
    dataset = read(path, name, split or "all")
    return dataset if split else dataclasses.replace(dataset, name=name)


def read_files(path: epath.PathLike, split: str | None = None) -> Images:
    """Reads images as they are stored; arguments and errors are those of `open_path`.

    The condition are the labels if there are any, by their names if they have some.
    """
    dataset = open_path(Path(path).expanduser(), repr(str(path)), split)
    condition = dataset.condition if dataset.labels is None else dataset.labels
    if dataset.labels is not None and dataset.class_names:
        condition = np.array(dataset.class_names)[condition]
    return Images(np.asarray(dataset.images[np.arange(len(dataset))]), condition, dataset.names())


def _open_digits(name: str, split: str) -> Dataset:
    """Opens a split of scikit-learn's 1,797 digits of 8×8, K = 17."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, rows = digits.images[..., None].astype(np.uint8), np.arange(len(digits.images))
    whole = Dataset(name, images, image_ids("", rows), levels=17, labels=digits.target)
    part = open_split_of(name, split, (), lambda _: whole, held_out=250)
    # The draws of published figures are by these.
    return dataclasses.replace(part, ids=image_ids(split.partition("[")[0], part.ids[:, 1]))


def _open_image_files(path: Path, name: str, split: str) -> Dataset:
    """Opens a split of a folder, perhaps with a subfolder for each split; or a single file."""

    def open_part(folder: str) -> Dataset:
        root, files = path / folder, sorted((path / folder).rglob("*"))
        if path.is_file():
            root, files = path.parent, [path]
        files = [file for file in files if file.suffix.lower() in SUFFIXES and file.is_file()]
        if not files:
            raise UserError(f"{name}: there are no image files in {root} ({', '.join(SUFFIXES)})")
        return Dataset(
            name=name,
            images=LazyArray(lambda indices: (_decode(files[i]) for i in indices), files),
            ids=image_ids(folder, np.arange(len(files))),
            file_names=[file.relative_to(root).as_posix() for file in files],
        )

    folders = [file.name for file in path.iterdir() if file.is_dir()] if path.is_dir() else []
    return open_split_of(name, split, folders, open_part)


def _decode(file: Path) -> np.ndarray:
    """Returns the pixels [H, W, C] of an image file."""
    try:
        with open_image(file) as image:
            _check_whole(image, file)
            return pixels(image)
    except Exception as error:
        error.add_note(f"in {file}")  # Not all of Pillow's errors name it.
        raise


def pixels(image: Image.Image) -> np.ndarray:
    """Returns the pixels [H, W, C] of an image."""
    array = np.asarray(image)
    return array[..., None] if array.ndim == 2 else array


def _check_whole(image: Any, file: Path) -> None:
    """Refuses an image file, not decoded yet, of which Pillow reads other values than it shows."""
    codec, _, _, form = image.tile[0] if image.tile else ("", 0, 0, "")
    wide = image.mode.startswith("I")
    if image.format == "TIFF":
        loses_bits = not wide and max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    elif codec.startswith("ppm"):  # The maximum of the file comes last; others are stretched.
        loses_bits = image.mode != "1" and form[-1] not in (255, 65535 if wide else 255)
    else:
        loses_bits = re.match(r"(RGB|LA)\w*;16", str(form)) is not None
    turned = "exif" in image.info and image.getexif().get(_ORIENTATION) in range(2, 9)
    if image.mode not in _MODES:
        problem = f"has mode {image.mode!r}, whose values are not intensities"
    elif loses_bits:
        problem = "has values that Pillow reads with fewer bits, or stretches"
    elif turned and image.format != "TIFF":  # Of which Pillow turns the pixels.
        problem = "is turned or mirrored by its EXIF orientation"
    elif getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # Of phones: one picture.
        problem = "has several pages or frames"
    else:
        return
    raise UserError(f"{file} {problem}: convert it first, for example to a PNG or .npy file")


def _open_array_file(path: Path, name: str, split: str) -> Dataset:
    """Opens a split of an .npy or .npz file with an array `[N, H, W]` or `[N, H, W, C]`.

    An .npz file may have an array for each split. Beside the images it may have labels in an array
    `labels`, and vectors or maps in an array `condition`: or in `train_labels`, `train_condition`
    and so on. An array `class_names` may name the classes of labels that are integers.
    """
    arrays = np.load(path, mmap_mode="r")
    if isinstance(arrays, np.ndarray):
        images = as_images(arrays, name)
        whole = Dataset(name, images, image_ids("", np.arange(len(images))))
        return open_split_of(name, split, (), lambda _: whole)
    with arrays:
        keys = [key for key in arrays.files if not _NOT_IMAGES.fullmatch(key)]

        def open_part(key: str) -> Dataset:
            if not key and len(keys) != 1:
                raise UserError(
                    f"{name} must hold one array of images, or arrays named train, validation and "
                    f"test, got {', '.join(keys) or 'none'}"
                )
            return _npz_dataset(arrays, key or keys[0], name, divided=len(keys) > 1)

        return open_split_of(name, split, keys, open_part)


def _npz_dataset(arrays: Any, key: str, name: str, *, divided: bool) -> Dataset:
    """Returns the images `key` of an .npz file with those of its arrays that belong to them."""

    def read(key: str) -> np.ndarray:
        array = arrays[key]
        return np.char.decode(array, "utf-8") if array.dtype.kind == "S" else array

    def read_beside(what: str) -> np.ndarray | None:
        own = f"{key}_{what}"  # In a divided set `what` alone does not say of which images it is.
        field = own if divided or own in arrays.files else what
        array = read(field) if field in arrays.files else None
        if array is not None and array.shape[:1] != images.shape[:1]:
            raise UserError(
                f"`{field}` of {name} must have a row for each of the {len(images)} images, got "
                f"shape {list(array.shape)}"
            )
        return array

    images = as_images(arrays[key], name)
    labels, condition = read_beside("labels"), read_beside("condition")
    class_names: tuple[str, ...] = ()
    if labels is not None and labels.ndim == 1 and labels.dtype.kind == "U":
        # Of all splits, so that each gives a class the same number.
        every = [read(field) for field in arrays.files if re.fullmatch("(.*_)?labels", field)]
        class_names = tuple(np.unique(np.concatenate(every)).tolist())
        labels = number_labels(labels, class_names)
    elif labels is not None and labels.dtype.kind in "iu" and "class_names" in arrays.files:
        class_names = tuple(map(str, read("class_names")))
        if not len(set(class_names)) == len(class_names) > labels.max() >= labels.min() >= 0:
            raise UserError(
                f"`class_names` of {name} must hold a name of its own for each label from 0 to "
                f"{labels.max()}, got {len(class_names)}"
            )
    ids = image_ids(key, np.arange(len(images)))
    return Dataset(name, images, ids, None, labels, class_names, condition)


def as_images(array: np.ndarray, name: str) -> np.ndarray:
    """Returns images `[N, H, W]` or `[N, H, W, C]` as `[N, H, W, C]`; `name` is for errors.

    Raises:
        UserError: They are no numbers, or of another shape, or their channels come first.
    """
    shape = list(array.shape)
    if array.ndim not in (3, 4) or 0 in shape or array.dtype.kind not in "biuf":
        raise UserError(
            f"{name} must hold numbers of shape [N, H, W] or [N, H, W, C], got {shape} of "
            f"{array.dtype}"
        )
    if array.ndim == 4 and shape[1] in (1, 3, 4) and shape[2] == shape[3] > 4:
        raise UserError(
            f"{name} has the shape {shape}, as if its channels came first: they come last here, "
            "np.moveaxis(images, 1, -1)"
        )
    return array if array.ndim == 4 else array[..., None]
