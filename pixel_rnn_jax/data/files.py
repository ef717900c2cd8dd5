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
    divide,
    has_part,
    image_ids,
    number_labels,
    open_part,
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
    """Opens a split of the set that `config.name` names, as it is stored.

    Args:
        config: `name` and `data_dir` are used.
        split: A TFDS split, a subfolder, or a key of an .npz file. An undivided set has the splits
            "train", "validation" and "test", by a fixed permutation (digits 1297/250/250, others
            80/10/10 percent), and "all". Of each a part may be taken, as in "test[:300]".

    Raises:
        UserError: There is no such set or split, it is not prepared, or it does not hold images.
    """
    name, path = f"data.name {config.name!r}", Path(config.name).expanduser()
    if config.name == "digits":
        return open_part(lambda split: _open_digits(name, split), split)
    if _TFDS_NAME.fullmatch(config.name) and path.suffix not in (".npy", ".npz"):
        from pixel_rnn_jax.data import tfds  # TFDS is imported only where it is used.

        if (builder := tfds.prepared(config)) is not None:
            return tfds.open_tfds(builder, name, split)
        if not path.is_dir():
            raise UserError(tfds.how_to_prepare(config))
    return open_path(path, name, split)


def open_path(path: Path, name: str, split: str | None = None) -> Dataset:
    """Opens a folder, an image file, or an .npy or .npz file.

    Args:
        path: Where it is.
        name: Its name in error messages.
        split: As `open_dataset` takes it; None for all images.

    Raises:
        UserError: There is no such path or split, or it does not hold images of one size.
    """
    if not path.exists():
        raise UserError(f"{name}: there is no such file or folder")
    array = path.suffix in (".npy", ".npz")
    if not (array or path.is_dir() or path.suffix.lower() in SUFFIXES):
        endings = ", ".join(SUFFIXES)
        raise UserError(f"{name} must be a folder, an .npy or .npz file, or an image ({endings})")
    read = _open_array_file if array else _open_image_files
    dataset = open_part(lambda split: read(path, name, split), split or "all")
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
    rows = divide(name, split, len(digits.images), held_out=250)
    return Dataset(
        name=f"split {split!r} of {name}",
        images=digits.images[rows, ..., None].astype(np.uint8),
        ids=image_ids(split, rows),
        levels=17,
        labels=digits.target[rows],
    )


def _open_image_files(path: Path, name: str, split: str) -> Dataset:
    """Opens a split of a folder, perhaps with a subfolder for each split; or a single file."""
    if path.is_dir():
        folders = [folder.name for folder in path.iterdir() if folder.is_dir()]
        container = split if has_part(name, split, folders) else ""
        root = path / container
        found = (file for file in root.rglob("*") if file.suffix.lower() in SUFFIXES)
        files = sorted(file for file in found if file.is_file())
    else:
        container, root, files = "", path.parent, [path]
    if not files:
        raise UserError(f"{name}: there are no image files in {root} ({', '.join(SUFFIXES)})")
    rows = np.arange(len(files)) if container else divide(name, split, len(files))
    files = [files[row] for row in rows]
    return Dataset(
        name=f"split {split!r} of {name}",
        images=LazyArray(lambda indices: (_decode(files[i]) for i in indices), files),
        ids=image_ids(container, rows),
        file_names=[file.relative_to(root).as_posix() for file in files],
    )


def _decode(file: Path) -> np.ndarray:
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
    if image.mode not in _MODES:
        problem = f"has mode {image.mode!r}, whose values are not intensities"
    elif loses_digits(image):
        problem = "has values that Pillow reads with fewer bits, or stretches"
    elif getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # Of phones: one picture.
        problem = "has several pages or frames"
    elif (
        image.format != "TIFF"  # Of which Pillow turns the pixels.
        and "exif" in image.info
        and image.getexif().get(_ORIENTATION) in range(2, 9)
    ):
        problem = "is turned or mirrored by its EXIF orientation"
    else:
        return
    raise UserError(f"{file} {problem}: convert it first, for example to a PNG or .npy file")


def loses_digits(image: Any) -> bool:
    """Whether Pillow drops digits of an image that is not decoded yet, or stretches its values."""
    if image.format == "TIFF":
        return not image.mode.startswith("I") and max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    for codec, _, _, arguments in image.tile:
        arguments = arguments if isinstance(arguments, tuple) else (arguments,)
        if codec.startswith("ppm") and image.mode != "1":  # The last one is the maximum.
            return arguments[-1] not in (255, 65535 if image.mode == "I" else 255)
        # Not "BGR;16" of BMP files, which is 16 bits a pixel.
        if any(re.match(r"(RGB|LA)\w*;16", str(argument)) for argument in arguments):
            return True
    return False


def _open_array_file(path: Path, name: str, split: str) -> Dataset:
    """Opens a split of an .npy or .npz file with an array `[N, H, W]` or `[N, H, W, C]`.

    An .npz file may have an array for each split. Beside the images it may have labels in an array
    `labels`, and vectors or maps in an array `condition`: or in `train_labels`, `train_condition`
    and so on. An array `class_names` may name the classes of labels that are integers.
    """
    arrays = np.load(path, mmap_mode="r")
    if isinstance(arrays, np.ndarray):
        whole = Dataset(name, as_images(arrays, name), image_ids("", np.arange(len(arrays))))
        key = ""
    else:
        with arrays:
            keys = [key for key in arrays.files if not _NOT_IMAGES.fullmatch(key)]
            if not has_part(name, split, keys) and len(keys) != 1:
                raise UserError(
                    f"{name} must hold one array of images, or arrays named train, validation and "
                    f"test, got {', '.join(keys) or 'none'}"
                )
            key = split if split in keys else keys[0]
            whole = _npz_dataset(arrays, keys, key, name)
    rows = np.arange(len(whole)) if key == split else divide(name, split, len(whole))
    part = whole if len(rows) == len(whole) else whole.part(rows)
    return dataclasses.replace(part, name=f"split {split!r} of {name}")


def _npz_dataset(arrays: Any, keys: list[str], key: str, name: str) -> Dataset:
    """Returns the images `key` of an .npz file with those of its arrays that belong to them."""

    def read(key: str) -> np.ndarray:
        return (
            np.char.decode(arrays[key], "utf-8") if arrays[key].dtype.kind == "S" else arrays[key]
        )

    def read_beside(what: str) -> np.ndarray | None:
        own = f"{key}_{what}"
        if (
            own not in arrays.files and len(keys) == 1
        ):  # Else it does not say of which images it is.
            own = what
        if own not in arrays.files:
            return None
        array = read(own)
        if array.shape[:1] != images.shape[:1]:
            raise UserError(
                f"`{own}` of {name} must have a row for each of the {len(images)} images, got "
                f"shape {list(array.shape)}"
            )
        return array

    images = as_images(arrays[key], name)
    labels, class_names = read_beside("labels"), ()
    if labels is not None and labels.dtype.kind == "U":
        # Of all splits, so that each gives a class the same number.
        every = [read(each) for each in arrays.files if re.fullmatch("(.*_)?labels", each)]
        class_names = tuple(np.unique(np.concatenate([a for a in every if a.dtype.kind == "U"])))
        labels = number_labels(labels, class_names)
    elif labels is not None and "class_names" in arrays.files:
        class_names = tuple(map(str, read("class_names").tolist()))
        if not len(set(class_names)) == len(class_names) > labels.max() >= labels.min() >= 0:
            raise UserError(
                f"`class_names` of {name} must hold a name of its own for each label from 0 to "
                f"{labels.max()}, got {len(class_names)}"
            )
    ids, condition = image_ids(key, np.arange(len(images))), read_beside("condition")
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
