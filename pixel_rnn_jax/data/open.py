"""Opening a set by its name; scikit-learn's digits, folders of images, and files of images."""

import contextlib
import dataclasses
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from etils import epath

from pixel_rnn_jax.data import standard
from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.data.dataset import Dataset, Images, LazyArray, divide, image_ids, stacked
from pixel_rnn_jax.data.readers import READERS
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import SUFFIXES, error_context, image_size, read_image

# "mnist", "downsampled_imagenet/32x32", "cifar10:3.0.2"; any other form is a path.
_TFDS_NAME = re.compile(r"[a-zA-Z]\w*(/[\w+.-]+)?(:[\d.*]+)?")
_NOT_IMAGES = re.compile(r"(.*_)?(labels|condition)|names")  # Other arrays of a file.


def open_dataset(config: DataConfig, split: str) -> Dataset:
    """Opens a split of the set that `config.name` and `config.data_dir` name, as it is stored.

    A split is one of TFDS, a subfolder, or an array of a file. An undivided set has the splits
    "train", "validation" and "test", by a fixed permutation (digits 1297/250/250, others 80/10/10
    percent), and "all", and parts of them, as in "test[:300]" or "train[99%:]".
    """
    name, path = f"data.name {config.name!r}", Path(config.name).expanduser()
    if config.name == "digits":
        return _open_digits(name, split)
    if _TFDS_NAME.fullmatch(config.name) and path.suffix not in READERS:
        from pixel_rnn_jax.data import tfds  # TFDS is imported only where it is used.

        if builder := tfds.prepared(config):
            return tfds.open_tfds(builder, name, split)
        if not path.is_dir():
            # A data.data_dir that does not have the set is a mistake, unless it is here already.
            here = not config.data_dir or standard.folder_of(config.name).exists()
            if config.name in standard.SETS and here:
                return standard.open_standard(config.name, split)
            place = f"data.data_dir {config.data_dir!r}, and none of {', '.join(standard.SETS)}"
            forms = "no folder, no set of TFDS prepared as array_record"
            raise UserError(f"{name} is {forms} in {place}")
    return open_path(path, name, split)


def open_path(path: Path, name: str, split: str | None = None) -> Dataset:
    """Opens all images, or a split, of a folder, an image file, or a file of `READERS`.

    `name` names the path in errors.
    """
    opener = _open_arrays if path.suffix in READERS else _open_image_files
    return opener(path, name, split or "all")


def read_files(path: epath.PathLike, split: str | None = None) -> Images:
    """Reads images as they are stored; the condition are the labels if there are any."""
    dataset = open_path(Path(path).expanduser(), repr(str(path)), split)
    condition = dataset.condition if dataset.labels is None else dataset.labels
    if dataset.class_names:
        condition = np.array(dataset.class_names)[condition]
    images, rows = dataset.images, np.arange(len(dataset))
    whole = images.rows(rows) if isinstance(images, LazyArray) else images[rows]
    return Images(stacked(whole, (), images.dtype), condition, dataset.names())


def _open_digits(name: str, split: str) -> Dataset:
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, ids = digits.images.astype(np.uint8), image_ids("", len(digits.images))
    whole = Dataset(name, images, ids, levels=17, labels=digits.target)
    part = divide(name, split, (), lambda _: whole, held_out=250)
    # The draws of published figures are by these.
    return dataclasses.replace(part, ids=image_ids(split.partition("[")[0], part.ids[:, 1]))


def _open_image_files(path: Path, name: str, split: str) -> Dataset:
    """Opens a split of a folder, whose subfolders are splits or classes, or a single file."""
    files = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in SUFFIXES)
    every = [file for file in files if "/." not in f"/{file.relative_to(path).as_posix()}"]
    every = every if path.is_dir() else [path]

    def read_folder(folder: str) -> Dataset:
        root = path / folder if path.is_dir() else path.parent
        files = [file for file in every if file.is_relative_to(root)]
        if not files:
            raise UserError(f"{name}: there are no image files in {root} ({', '.join(SUFFIXES)})")
        names, depth = [file.relative_to(root).as_posix() for file in files], bool(folder)
        # From all splits, so that each gives a class the same number.
        paths = [file.relative_to(path).parts for file in every if path.is_dir()]
        classes = sorted({parts[depth] for parts in paths if len(parts) > depth + 1})
        has_labels = len(classes) > 1 and all("/" in name for name in names)
        return Dataset(
            name=name,
            images=LazyArray(
                lambda indices: (read_image(files[i]) for i in indices),
                files,
                lambda: [image_size(file) for file in files],
            ),
            ids=image_ids(folder, len(files)),
            labels=np.array([name.partition("/")[0] for name in names]) if has_labels else None,
            class_names=tuple(classes) if has_labels else (),
            file_names=names,
        )

    folders = [file.name for file in path.iterdir() if file.is_dir()] if path.is_dir() else []
    return divide(name, split, folders, read_folder)


def _open_arrays(path: Path, name: str, split: str) -> Dataset:
    """Opens a split of a file of `READERS`: its arrays are the images, or the images of each split.

    There may be `labels` and `condition`, with several splits `train_labels` and so on.
    """
    with error_context(path):
        opened = READERS[path.suffix](path)
    arrays = opened if isinstance(opened, Mapping) else {"": opened}
    keys = [key for key in arrays if not _NOT_IMAGES.fullmatch(key)]
    splits, whole = [key for key in keys if key], len(keys) == 1

    def read_arrays(key: str) -> Dataset:
        key = key or keys[0]

        def read(field: str) -> np.ndarray | None:
            # In a divided set the plain name does not say of which images it is.
            if not whole or f"{key}_{field}" in arrays:
                field = f"{key}_{field}"
            return np.asarray(arrays[field]) if field in arrays else None

        with error_context(path):
            images = np.asanyarray(arrays[key])
            labels, condition = read("labels"), read("condition")
            class_names: tuple[str, ...] = ()
            if labels is not None and labels.dtype.kind == "U":
                # From all splits, so that each gives a class the same number.
                every = [arrays[field] for field in arrays if re.fullmatch("(.*_)?labels", field)]
                class_names = tuple(np.unique(np.concatenate(every)).tolist())
            ids = image_ids(key, len(images))
        return Dataset(name, images, ids, None, labels, class_names, condition)

    with contextlib.ExitStack() as stack:
        if isinstance(opened, contextlib.AbstractContextManager):
            stack.enter_context(opened)
        return divide(name, split, splits, read_arrays, whole=whole)
