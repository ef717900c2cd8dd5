"""Flags that several commands have, and the checks of the paths that flags name."""

import argparse
import itertools
import os
from argparse import SUPPRESS, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from etils import epath

from pixel_rnn_jax import bundled, config
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.files import SUFFIXES

READ = "images", "workdir", "file", "known", "condition", "continuous"
"""Flags that name what a command reads."""
WRITTEN = "out", "pixel_map"
"""Flags that name what it writes."""


class Parser(argparse.ArgumentParser):
    """A parser without abbreviations, whose errors are `UserError`s."""

    def __init__(self, **options: Any):
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        """Raises a `UserError`, where argparse would print the usage and exit."""
        raise UserError(f"{self.prog.split()[-1]}: {message}")


def path(text: str) -> epath.Path:
    """Returns the path that a flag names, which may be in a bucket."""
    if not text:
        raise ArgumentTypeError("must name a path, got ''")
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
    """Returns the type of a flag that names a file to write; "" among the endings is a new folder.

    What cannot be written is refused here, before any work.
    """

    def check(text: str) -> str:
        path = Path(text).expanduser()
        folder = "" in endings and not path.suffix
        if not text or "://" in text or (endings and path.suffix not in endings):
            kinds = " or ".join(ending or "a folder" for ending in endings) or "a file"
            raise ArgumentTypeError(f"must be {kinds} on this machine, got {text!r}")
        if path.is_file() if folder else path.is_dir():
            raise ArgumentTypeError(f"{text} is a {'file' if folder else 'folder'}")
        if folder and path.is_dir() and any(path.iterdir()):
            raise ArgumentTypeError(f"{text} is a folder that is not empty")
        parent = next(parent for parent in path.absolute().parents if parent.exists())
        if not parent.is_dir() or not os.access(parent, os.W_OK):
            raise ArgumentTypeError(f"{text} cannot be written: {parent} takes no files")
        return str(path)

    return check


def check_not_read(arguments: Namespace) -> None:
    """Refuses to write over a file that is read, or an image of a folder that is read."""
    values = vars(arguments)
    for flag, read in itertools.product(WRITTEN, READ):
        out, source = values.get(flag), values.get(read)
        if not out or not source or not os.path.isfile(out):
            continue
        same = os.path.exists(source) and os.path.samefile(out, source)
        image = read == "images" and Path(out).suffix.lower() in SUFFIXES
        if same or (image and Path(source).resolve() in Path(out).resolve().parents):
            raise UserError(f"--{flag}={out} would write over --{read}={source}")


def model_flags(parser: Parser) -> None:
    """Defines --workdir and --model, one of which names the trained model."""
    names = ", ".join(bundled.names())

    def bundled_model(name: str) -> epath.Path:
        if name not in bundled.names():
            raise ArgumentTypeError(f"{name!r} is none of {names}")
        return epath.Path(bundled.path(name))

    group = parser.add_mutually_exclusive_group(required=True)
    help_ = "directory of a training run, gs://BUCKET/FOLDER, or a file that `export` wrote"
    group.add_argument("--workdir", type=path, help=help_)
    help_ = f"a model that comes with the package: {names}"
    group.add_argument("--model", dest="workdir", metavar="NAME", type=bundled_model, help=help_)


def images_flags(parser: Parser, *, required: bool = False) -> None:
    """Defines --images and --split; without --images they are of the data of the run."""
    default = "" if required else " (default: those of the run)"
    help_ = f"a folder of images, an image file, or an .npy or .npz file{default}"
    parser.add_argument("--images", type=path, required=required, help=help_)
    help_ = "train, validation, test or 'test[:300]'; of --images also a subfolder or a key"
    default = " (default: all images)" if required else " (default: test, or all of --images)"
    parser.add_argument("--split", help=help_ + default)


def out_flag(parser: Parser, default: str) -> None:
    """Defines --out of images."""
    help_ = "a .png picture, an .npz file, or a new folder of PNG files (default: %(default)s)"
    parser.add_argument("--out", type=output(".png", ".npz", ""), default=default, help=help_)


def seed_flag(parser: Parser) -> None:
    """Defines --seed."""
    help_ = "seed of the random draws: the same one gives the same images (default: 0)"
    parser.add_argument("--seed", type=at_least(0), default=0, help=help_)


def process_flags(parser: Parser) -> None:
    """Defines the flags by which several processes join."""
    help_ = "join the processes that the cluster has started (default: where it names several)"
    parser.add_argument("--distributed", action="store_true", default=None, help=help_)
    parser.add_argument(
        "--nodistributed", action="store_false", dest="distributed", default=None, help="never"
    )
    help_ = "address of the first process; joins the processes by hand"
    parser.add_argument("--coordinator", metavar="HOST:PORT", help=help_)
    help_ = "with --coordinator: the number of processes"
    parser.add_argument("--num_processes", type=int, metavar="N", help=help_)
    help_ = "with --coordinator: number of this process, from 0 on"
    parser.add_argument("--process_id", type=int, metavar="I", help=help_)


def config_flags(parser: Parser, prefix: str = "") -> None:
    """Defines --config.FIELD=VALUE for the fields whose dotted names have this prefix."""
    for name, _ in config.leaves(config.Config()):
        if name.startswith(prefix):
            parser.add_argument(f"--config.{name}", help=SUPPRESS)


def overrides(arguments: Namespace) -> list[str]:
    """Returns the values of `config_flags` as `config.override` takes them."""
    return [
        f"{name.removeprefix('config.')}={value}"
        for name, value in vars(arguments).items()
        if name.startswith("config.") and value is not None
    ]
