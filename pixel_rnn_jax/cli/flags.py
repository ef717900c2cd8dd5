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
    from pixel_rnn_jax.system import processes, terminal


def path(text: str) -> epath.Path:
    """Returns the path that a flag names, which may be in a bucket."""
    try:
        files.check_storage(text)
    except UserError as error:
        raise ArgumentTypeError(str(error)) from error
    return epath.Path(text).expanduser()


def at_least(least: float, kind: Callable[[str], float] = int) -> Callable[[str], float]:
    """Returns the type of a flag that takes a number."""

    def number(text: str) -> float:
        value = kind(text)
        if not value >= least:
            raise ArgumentTypeError(f"must be at least {least}, got {text}")
        return value

    return number


def output(*endings: str) -> Callable[[str], str]:
    """Returns the type of a flag that names a local file to write, with one of the endings if any.

    The ending "" is a new folder.
    """
    kinds = " or ".join(ending or "new folder" for ending in endings) or "file"

    def check(text: str) -> str:
        local = text and "://" not in text and "\0" not in text
        path = Path(text if local else "").expanduser()
        taken = path.exists() if "" in endings and not path.suffix else path.is_dir()
        if not local or taken or (endings and path.suffix not in endings):
            here = ", which is there already" if local and taken else ""
            raise ArgumentTypeError(f"must name a {kinds}, got {text!r}{here}")
        return str(path)

    return check


def model_flags(parser: ArgumentParser) -> None:
    """Defines --workdir and --model, one of which names the trained model."""
    add = parser.add_mutually_exclusive_group(required=True).add_argument
    names = files.bundled_names()
    help_ = f"a run, also gs://BUCKET/FOLDER, a file of `export`, or one of {', '.join(names)}"
    known = lambda text: text if text in names else path(text)  # noqa: E731
    add("--model", dest="source", metavar="MODEL", type=known, help=help_)
    add("--workdir", dest="source", type=path, help="a run, as --model")


def images_flags(parser: ArgumentParser, *, required: bool = False) -> None:
    """Defines --images and --split; without --images they are of the data of the run."""
    help_ = f"a folder of images, an image file, or a file of images ({', '.join(READERS)})"
    help_ += "" if required else " (default: the run's)"
    parser.add_argument("--images", type=path, required=required, help=help_)
    help_ = "train, validation, test or 'test[:300]'; of --images also a subfolder or a key"
    help_ += f" (default: {'' if required else 'test, or '}all of undivided --images)"
    parser.add_argument("--split", help=help_)
    help_ = "number or name of the class of --images that have none (default: of the highest p)"
    parser.add_argument("--class", dest="label", help=help_)


def open_images(arguments: Namespace, model: "image_model.ImageModel") -> "data.Split":
    """Opens the images that --images names, for a model."""
    label = None if arguments.label is None else class_of(arguments.label, model)

    def classify(images: Any) -> np.ndarray:
        if label is not None:
            return np.full(len(images), label)
        found, counts = np.unique(labels := model.classify(images), return_counts=True)
        shares = ", ".join(f"{count} of {name}" for name, count in zip(found, counts, strict=True))
        terminal.log(f"--class is not given; by the highest p: {shares}")
        return labels

    path, split, names = arguments.images, arguments.split, model.class_names
    return data.own_images(path, split, model.pixel_rnn, names, classify)


def class_of(label: str, model: "image_model.ImageModel") -> int | str:
    """Returns the class that --class names, by its number or its name."""
    if not model.config.condition.classes:
        raise UserError("--class is for a model with classes, and this one has none")
    return int(label) if label.isdecimal() and label not in model.class_names else label


def out_flag(parser: ArgumentParser, default: str) -> None:
    """Defines --out of images, which `pictures.check_out` checks further."""
    help_ = "a .png picture, an .npz file, or a new folder of PNG files (default: %(default)s)"
    parser.add_argument("--out", type=output(".png", ".npz", ""), default=default, help=help_)


def plugin_flag(parser: ArgumentParser) -> None:
    """Defines --plugin, which `parse.run_plugins` has taken out of the words before."""
    help_ = "a Python file to run first, which may add bodies, heads, outputs and readers"
    parser.add_argument("--plugin", metavar="FILE.py", help=help_)


def process_flags(parser: ArgumentParser) -> None:
    """Defines the flags by which several processes join."""
    add = parser.add_argument
    help_ = "join the processes of SLURM, Open MPI or a Cloud TPU"
    add("--distributed", action="store_true", help=help_)
    help_ = "address of the first process, to join by hand"
    add("--coordinator", metavar="HOST:PORT", help=help_)
    add("--num_processes", type=int, metavar="N", help="with --coordinator: how many there are")
    add("--process_id", type=int, metavar="ID", help="with --coordinator: index of this, from 0")


def join(arguments: Namespace) -> None:
    """Joins the processes that the flags name, if any."""
    names = "coordinator", "num_processes", "process_id", "distributed"
    processes.join(*(vars(arguments)[name] for name in names))


def data_flags(parser: ArgumentParser) -> None:
    """Defines where the images of a run are now, if they have been moved."""
    parser.add_argument("--data_name", help="data.name of the run, where its images are now")
    parser.add_argument("--data_dir", help="data.data_dir of the run")
