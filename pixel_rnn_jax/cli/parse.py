"""The verbs, and how a command line names one of them with its flags."""

import difflib
import functools
import importlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

import pixel_rnn_jax as prnn
from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli.flags import Flags, compilation_flag, config_flag, workdir_flag
from pixel_rnn_jax.errors import UserError

PROGRAM = "python -m pixel_rnn_jax.main"


class Verb(NamedTuple):
    """One command; its module is imported when it is needed, since JAX takes a second."""

    name: str
    module: str
    summary: str
    example: str

    @property
    def run(self) -> Callable[[Flags], None]:
        """Does the work."""
        return getattr(self._module, self.name)

    @property
    def define(self) -> Callable[[Flags], None]:
        """Defines the flags."""
        return getattr(self._module, f"{self.name}_flags")

    @property
    def _module(self) -> ModuleType:
        return importlib.import_module(f"pixel_rnn_jax.cli.{self.module}")


TRAIN = "train"
VERBS = {
    name: Verb(name, *rest)
    for name, *rest in (
        (
            TRAIN,
            "train",
            "Trains a model, or goes on with the run that is in its workdir.",
            "--config=mnist:row_lstm --config.train.steps=20000 --workdir=runs/a",
        ),
        (
            "evaluate",
            "evaluate",
            "Prints the likelihood of the images of a split, or of your own, in nats and bits/dim.",
            "--workdir=runs/a --split=test",
        ),
        (
            "sample",
            "generate",
            "Draws new images.",
            "--workdir=runs/a --n=64 --out=samples.png",
        ),
        (
            "complete",
            "generate",
            "Draws the unknown part of images given the known one.",
            "--workdir=runs/a --known=top_half --n=16 --out=completions.png",
        ),
        (
            "compress",
            "compress",
            "Compresses images without loss.",
            "--workdir=runs/a --images=images.npz --out=images.prnn",
        ),
        (
            "append",
            "compress",
            "Adds images to a compressed file.",
            "images.prnn --workdir=runs/a --images=more",
        ),
        (
            "decompress",
            "archive",
            "Decompresses a file; an .npz file gets names, classes or conditions as well.",
            "images.prnn --workdir=runs/a --out=images.npz",
        ),
        (
            "extract",
            "archive",
            "Decompresses the images of a file that have the given names.",
            "images.prnn cat.png dog.png --workdir=runs/a --out=pets",
        ),
        (
            "info",
            "archive",
            "Prints what a compressed file holds; no model is needed.",
            "images.prnn",
        ),
        (
            "verify",
            "archive",
            "Checks a compressed file: all checksums, and with --workdir what it decodes to.",
            "images.prnn --workdir=runs/a",
        ),
        (
            "export",
            "export",
            "Writes the trained model to one file, which needs no workdir.",
            "--workdir=runs/a --out=model.safetensors",
        ),
    )
}
WITHOUT_MODEL = ("info", "verify")
"""Verbs that do without --workdir."""
_READ, _WRITTEN = ("workdir", "file", "images", "data", "known", "condition"), ("out", "pixel_map")


def parse(argv: Sequence[str]) -> functools.partial[None]:
    """Parses a command line: `[program, verb, flag, ...]`; without a verb it is `train`.

    --help and --version end the program instead.

    Returns:
        What runs the command: the function of the verb, bound to its flags.

    Raises:
        UserError: A verb, a flag, a field or a file is unknown, or a value has the wrong type.
    """
    words = list(argv[1:])
    name = words.pop(0) if words and not words[0].startswith("-") else ""
    if name and name not in VERBS:
        (nearest,) = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.0)
        raise UserError(f"there is no command {name}; did you mean {nearest}?")
    if {"-h", "--help"} & set(words):
        print(_help(name) if name else _overview())
        sys.exit()
    if "--version" in words:
        print(f"pixel-rnn-jax {prnn.__version__}")
        sys.exit()
    name = name or TRAIN
    values = _define(name)
    source, words = _define_config(values, words) if name == TRAIN else ("", words)
    words = _read(name, values, words)
    if words and "file" in values and not values["file"].present:  # A positional argument.
        values["file"].value = words.pop(0)
    if words and "names" in values:
        values["names"].value, words = words, []
    if words:
        raise UserError(f"{name} takes nothing but flags, got {words[0]!r}")
    if source and not values.workdir:
        file, _, argument = source.partition(":")
        values["workdir"].value = f"runs/{Path(file).stem}" + (f"-{argument}" if argument else "")
    if name not in WITHOUT_MODEL and not values.workdir:
        raise UserError(f"{name} needs --workdir=DIR, the directory of a training run")
    _check_paths(values)
    return functools.partial(VERBS[name].run, values)


def _check_paths(values: Flags) -> None:
    """Refuses to write over what is read, and to read images in two places."""
    given = {name: values[name].value or "" for name in (*_READ, *_WRITTEN) if name in values}
    for out, read in itertools.product(_WRITTEN, _READ):
        paths = given.get(out, ""), given.get(read, "")
        if all(map(os.path.isfile, paths)) and os.path.samefile(*paths):
            raise UserError(f"--{out}={paths[0]} would replace --{read}: give it another name")
    if given.get("images") and given.get("data"):
        raise UserError("--data is for the images of the run: leave it out with --images")


def _define(name: str) -> Flags:
    """Returns the flags of a verb, without those of a config."""
    values = Flags()
    if name != "info":
        workdir_flag(values, new=name == TRAIN)
    compilation_flag(values)
    VERBS[name].define(values)
    return values


def _define_config(values: Flags, words: list[str]) -> tuple[str, list[str]]:
    """Defines overrides of the config that --config names; returns its name and the other words."""
    config = Flags()
    config_flag(config)
    words = _read(TRAIN, config, words, known_only=True)
    if not config.config:
        raise UserError("train needs --config=FILE, for example --config=digits")
    for word in words:
        if override := re.match(r"--?(?:no)?config\.([^=]*)", word):
            config_lib.field_kind(override[1])
    config_flags.DEFINE_config_dict(
        "config",
        config_lib.load_config_dict(config.config),
        flag_values=values,
        sys_argv=[PROGRAM, *words],
    )
    return config.config, words


def _read(verb: str, values: Flags, words: list[str], *, known_only: bool = False) -> list[str]:
    """Sets flags from words, and returns the other words; `known_only` allows unknown flags."""
    try:
        return values([PROGRAM, *words], known_only)[1:]
    except (flags.Error, ValueError) as error:  # A ValueError for --nofield=value.
        wrong = re.match(r"flag --config\.(\S+?)=(.*?): ", str(error), re.DOTALL)
        if not wrong:
            raise UserError(f"{verb}: {error}") from error
        kind = config_lib.field_kind(wrong[1])
        raise UserError(f"{wrong[1]} must be {kind}, got {wrong[2]!r}") from error


def _overview() -> str:
    verbs = "\n".join(f"  {name:11}{verb.summary}" for name, verb in VERBS.items())
    return (
        f"Usage: {PROGRAM} [VERB] [FLAGS]\n\n{verbs}\n\n"
        "Without a verb it is train. --help after a verb shows its flags; --version, the version."
        f"\n\nExample:\n  {PROGRAM} {VERBS['train'].example}"
    )


def _help(name: str) -> str:
    verb, values, fields = VERBS[name], _define(name), ""
    if name == TRAIN:
        config_flag(values)
        defaults = config_lib.leaves(config_lib.Config())
        fields = "\nFields of the config, described in pixel_rnn_jax/config/schema.py, with their"
        fields += " defaults:\n" + "\n".join(f"  --config.{key}={value}" for key, value in defaults)
    # All are defined in one module, so that absl lists them together.
    flags_ = values.get_help(include_special_flags=False).replace(f"{Flags.__module__}:", "Flags:")
    example = f"Example:\n  {PROGRAM} {name} {verb.example}"
    return f"{verb.summary}\n\n{example}\n{flags_}\n{fields}".rstrip()
