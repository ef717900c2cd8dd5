"""The paths that flags name: expanded, of a model of the package, and not in each other's way."""

import itertools
import os
from pathlib import Path

from pixel_rnn_jax import shipped
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.paths import expanded

READ = ("workdir", "file", "images", "data", "known", "condition", "continuous")
WRITTEN = ("out", "pixel_map", "compilation_cache")


def settle(values: Flags) -> None:
    """Expands the paths of flags, and makes the folder of --model the --workdir.

    Raises:
        UserError: One can be no path; what is written would replace what is read; there is no such
            model; or two flags exclude each other.
    """
    for name in (*READ, *WRITTEN):
        if name in values:
            given = values[name].value
            if given == "" and values[name].present and name != "compilation_cache":
                raise UserError(f"--{name}= names no path: name one, or leave the flag out")
            if isinstance(given, str):
                values[name].value = expanded(given, f"--{name}")
            elif given:  # Several workdirs.
                values[name].value = [expanded(each, f"--{name}") for each in given]
    if "model" in values and values.model:
        _take_model(values)
    elif "workdir" in values and values.workdir in shipped.names():
        values["workdir"].value = f"./{values.workdir}"  # And not the model of that name.
    _check(values)


def _take_model(values: Flags) -> None:
    if values.workdir:
        raise UserError("leave out one of --workdir and --model")
    if values.model not in shipped.names():
        raise UserError(
            f"there is no model {values.model!r} in the package: choose from "
            f"{', '.join(shipped.names())}, or give --workdir"
        )
    values["workdir"].value = shipped.place(values.model)


def _would_replace(out: str, read: str, flag: str) -> bool:
    """Whether a file that is written would replace one that is read, or an image of a folder."""
    if not os.path.isfile(out):
        return False
    if os.path.isfile(read):
        return os.path.samefile(out, read)
    from pixel_rnn_jax.image_files import SUFFIXES  # Which --help does without.

    image = flag in ("images", "data") and Path(out).suffix.lower() in SUFFIXES
    return bool(read) and image and Path(read).resolve() in Path(out).resolve().parents


def _check(values: Flags) -> None:
    """Refuses to write over what is read, and to read images in two places."""
    given = {name: values[name].value or "" for name in (*READ, *WRITTEN) if name in values}
    for out, read in itertools.product(WRITTEN, READ):
        paths = given.get(out, ""), given.get(read, "")
        if all(isinstance(path, str) for path in paths) and _would_replace(*paths, read):
            raise UserError(f"--{out}={paths[0]} would replace --{read}: give it another name")
    if given.get("images") and given.get("data"):
        raise UserError("--data is for the images of the run: leave it out with --images")
