"""Flags that several commands have, and the checks of the paths that flags name."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from etils import epath, epy

from pixel_rnn_jax.data.readers import READERS
from pixel_rnn_jax.system import files
from pixel_rnn_jax.system.errors import UserError

with epy.lazy_imports():
    from pixel_rnn_jax import data, image_model
    from pixel_rnn_jax.model import checks
    from pixel_rnn_jax.runs import source
    from pixel_rnn_jax.system import terminal


def path(text: str) -> epath.Path:
    """Returns the path that a flag names, which may be in a bucket."""
    try:
        files.check_storage(text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from error
    return epath.Path(text).expanduser()


def at_least(least: float, number: Callable[[str], float] = int) -> Callable[[str], float]:
    """Returns the type of a flag that takes a number."""

    def check(text: str) -> float:
        value = number(text)
        if not value >= least:
            raise ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    return check


def size(text: str) -> tuple[int, int]:
    """Returns the height and the width of images, as in "64x48"."""
    height, width = map(int, text.split("x"))
    return height, width


def output(*endings: str) -> Callable[[str], str]:
    """Returns the type of a flag that names a local file to write, with one of the endings if any.

    The ending "" is a new folder.
    """
    what = " or ".join(ending or "new folder" for ending in endings) or "file"

    def check(text: str) -> str:
        local = text and "://" not in text and "\0" not in text
        path = Path(text if local else "").expanduser()
        taken = path.exists() if "" in endings and not path.suffix else path.is_dir()
        if not local or taken or (endings and path.suffix not in endings):
            here = ", which is there already" if local and taken else ""
            raise ArgumentTypeError(f"must name a {what}, got {text!r}{here}")
        return str(path)

    return check


def model_flags(parser: ArgumentParser) -> None:
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    names = files.bundled_names()
    help_ = f"a run, also gs://BUCKET/FOLDER, a file of `export`, or one of {', '.join(names)}"
    known = lambda text: text if text in names else path(text)  # noqa: E731
    add("--model", dest="source", metavar="MODEL", type=known, help=help_)
    add("--workdir", dest="source", type=path, help="a run, as --model")


def images_flags(parser: ArgumentParser, *, required: bool = False) -> None:
    help_ = f"a folder of images, an image file, or a file of images ({', '.join(READERS)})"
    help_ += "" if required else " (default: the run's)"
    parser.add_argument("--images", type=path, required=required, help=help_)
    help_ = "train, validation, test or 'test[:300]'; of --images also a subfolder or a key"
    help_ += f" (default: {'' if required else 'test, or '}all of undivided --images)"
    parser.add_argument("--split", help=help_)
    help_ = "class for unlabelled --images (default: most likely class of each)"
    parser.add_argument("--class", dest="label", help=help_)


def part_flag(parser: ArgumentParser) -> None:
    help_ = "T: a larger picture is a grid of parts of at most TxT (default: by the model's size)"
    parser.add_argument("--part", type=at_least(1), default=0, metavar="T", help=help_)


def select_split(arguments: Namespace, run: "source.Run") -> "data.Split":
    """Opens the images that --images, or --split of the run, names."""
    moves = dict(name=arguments.data_name, data_dir=arguments.data_dir)
    if arguments.images and any(moves.values()):
        raise UserError("--data_name and --data_dir are of a run: leave them out with --images")
    if arguments.images:
        return select_images(arguments, run.image_model)
    if arguments.label is not None:
        raise UserError("--class is of --images: the images of the run have their own")
    return run.read_split(arguments.split or "test", **moves)


def select_images(arguments: Namespace, model: "image_model.ImageModel") -> "data.Split":
    """Opens the images that --images names, for a model."""
    label = None if arguments.label is None else label_of(arguments.label, model)

    def classify(images: Any) -> np.ndarray:
        if label is not None:
            return np.full(len(images), label)
        several = isinstance(images, list)
        groups = [image[None] for image in images] if several else [images]
        labels = np.concatenate([model.classify(group) for group in groups])
        found, counts = np.unique(labels, return_counts=True)
        shares = ", ".join(f"{count} of {name}" for name, count in zip(found, counts, strict=True))
        terminal.log(f"--class is not given; by the highest p: {shares}")
        return labels

    path, split, names = arguments.images, arguments.split, model.class_names
    return data.own_images(path, split, model.pixel_rnn, names, classify)


def label_of(label: str, model: "image_model.ImageModel") -> int | str:
    """Returns the class that --class names, by its number or its name."""
    if not model.config.condition.classes:
        raise UserError("--class is for a model with classes, and this one has none")
    return int(label) if label.isdecimal() and label not in model.class_names else label


def condition_arrays(model: "image_model.ImageModel", condition: Any) -> dict[str, np.ndarray]:
    """Returns the arrays of an .npz file that say on what its images are conditioned."""
    if condition is None:
        return {}
    classes, names = model.config.condition.classes, model.class_names
    condition = np.asarray(checks.class_numbers(condition, names))
    if len(names) == classes > 0:  # There may be fewer names.
        condition = np.array(names)[condition]
    return {"labels" if classes else "condition": condition}


def draw_flags(parser: ArgumentParser, count: str, out: str) -> None:
    parser.add_argument("--n", type=at_least(1), help=count)
    parser.add_argument("--seed", type=at_least(0), default=0, help="default: 0")
    out_flag(parser, out)


def file_flag(parser: ArgumentParser, default: str) -> None:
    parser.add_argument("--out", type=output(), default=default, help="default: %(default)s")


def out_flag(parser: ArgumentParser, default: str) -> None:
    """Defines --out of images, which `pictures.check_out` checks further."""
    help_ = "a .png picture, an .npz file, or a new folder of PNG files (default: %(default)s)"
    parser.add_argument("--out", type=output(".png", ".npz", ""), default=default, help=help_)


def plugin_flag(parser: ArgumentParser) -> None:
    help_ = "a Python file to run first, which may add bodies, heads, outputs and readers"
    parser.add_argument("--plugin", action="append", default=[], metavar="FILE.py", help=help_)


def process_flags(parser: ArgumentParser) -> None:
    add = parser.add_argument
    add("--distributed", action="store_true", help="join by SLURM, Open MPI or a Cloud TPU")
    add("--coordinator", metavar="HOST:PORT", help="address of the first process")
    add("--num_processes", type=int, metavar="N", help="with --coordinator: how many there are")
    add("--process_id", type=int, metavar="ID", help="with --coordinator: index of this, from 0")


def data_flags(parser: ArgumentParser) -> None:
    parser.add_argument("--data_name", help="data.name of the run, where its images are now")
    parser.add_argument("--data_dir", help="data.data_dir of the run")
