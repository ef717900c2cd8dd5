"""The verbs, and how a command line names one of them with its flags."""

import difflib
import functools
import importlib
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

import pixel_rnn_jax as prnn
from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli import places, verb_flags
from pixel_rnn_jax.cli.flags import (
    Flags,
    compilation_flag,
    config_flag,
    model_flag,
    quiet_flag,
    workdir_flag,
    workdirs_flag,
)
from pixel_rnn_jax.cli.printing import put
from pixel_rnn_jax.errors import LOST, USER_ERROR, UserError
from pixel_rnn_jax.paths import expanded

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
        return getattr(verb_flags, f"{self.name}_flags")

    @property
    def _module(self) -> ModuleType:
        return importlib.import_module(f"pixel_rnn_jax.cli.{self.module}")


TRAIN, COMPLETION = "train", "completion"
VERBS = {
    name: Verb(name, *rest)
    for name, *rest in (
        (
            TRAIN,
            "train",
            "Trains a model, or goes on with the run that is in its workdir.",
            "--config=mnist:row_lstm --config.train.steps=30000 --workdir=runs/a",
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
        (
            "report",
            "report",
            "Writes a page about runs, side by side: configs, curves, results and pictures.",
            "--workdir=runs/a runs/b --out=report.html",
        ),
        (
            COMPLETION,
            "completion",
            "Prints a script with which bash or zsh completes commands.",
            "bash",
        ),
    )
}
WITHOUT_MODEL = ("info", "verify", COMPLETION)
"""Verbs that do without --workdir."""
OF_RUNS = ("report",)
"""Verbs that take several workdirs."""


def parse(argv: Sequence[str]) -> functools.partial[None]:
    """Parses a command line: `[program, verb, flag, ...]`; without a verb it is `train`.

    --help, --version and `completion`, which need no JAX, end the program instead.

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
        put(_help(name) if name else _overview())
        sys.exit()
    if "--version" in words:
        put(f"pixel-rnn-jax {prnn.__version__}")
        sys.exit()
    name = name or TRAIN
    values = define(name)
    source, words = _define_config(values, words) if name == TRAIN else ("", words)
    words = _read(name, values, words)
    for positional in ("file", "shell"):
        if words and positional in values and not values[positional].present:
            values[positional].value = words.pop(0)
    if words and "names" in values:
        values["names"].value, words = [*(values.names or []), *words], []
    if name in OF_RUNS:
        values["workdir"].value, words = [*filter(None, values.workdir or []), *words], []
    if words:
        raise UserError(f"{name} takes nothing but flags, got {words[0]!r}")
    places.settle(values)
    if source and not values.workdir:
        file, _, argument = source.partition(":")
        values["workdir"].value = f"runs/{Path(file).stem}" + (f"-{argument}" if argument else "")
    if name not in WITHOUT_MODEL and not values.workdir:
        instead = ", or --model=NAME" if "model" in values else ""
        raise UserError(f"{name} needs --workdir=DIR, the directory of a training run{instead}")
    command = functools.partial(VERBS[name].run, values)
    if name == COMPLETION:
        command()
        sys.exit()
    return command


def define(name: str) -> Flags:
    """Returns the flags of a verb, without those of a config."""
    values = Flags()
    if name in OF_RUNS:
        workdirs_flag(values)
    elif name not in ("info", COMPLETION):
        workdir_flag(values, new=name == TRAIN)
    if name not in ("info", TRAIN, COMPLETION, *OF_RUNS):
        model_flag(values)
    if name != COMPLETION:
        compilation_flag(values)
        quiet_flag(values)
    VERBS[name].define(values)
    return values


def _define_config(values: Flags, words: list[str]) -> tuple[str, list[str]]:
    """Defines overrides of the config that --config names, or of the run in --workdir without it.

    Returns the name and the other words.
    """
    config = Flags()
    config_flag(config)
    words = _read(TRAIN, config, words, known_only=True)
    name = expanded(config.config or "", "--config")
    fields = config_lib.load_config_dict(name) if name else _of_run(words)
    for word in words:
        if override := re.match(r"--?(?:no)?config\.([^=]*)", word):
            config_lib.field_kind(override[1])
    config_flags.DEFINE_config_dict(
        "config",
        fields,
        flag_values=values,
        sys_argv=[PROGRAM, *words],
    )
    return config.config, words


def _of_run(words: list[str]) -> ConfigDict:
    """Returns the config of the run that --workdir names."""
    values = Flags()
    workdir_flag(values, new=True)
    _read(TRAIN, values, words, known_only=True)
    if not values.workdir:
        raise UserError(
            "train needs --config=FILE, for example --config=digits, or the --workdir of a run to "
            "go on with"
        )
    from pixel_rnn_jax.runs.workdir import read_config  # It imports JAX.

    try:
        return config_lib.to_config_dict(read_config(expanded(values.workdir, "--workdir")))
    except UserError as error:
        raise UserError(f"{error}; a new run needs --config=FILE") from error


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
        f"\n\nExample:\n  {PROGRAM} {VERBS['train'].example}\n\n{_statuses(TRAIN)}"
    )


def _help(name: str) -> str:
    verb, values, fields = VERBS[name], define(name), ""
    if name == TRAIN:
        config_flag(values)
        meanings = config_lib.field_meanings()
        lines = (
            flags.text_wrap(f"--config.{key}={value}: {meanings[key]}", 80, "    ", "  ")
            for key, value in config_lib.leaves(config_lib.Config())
        )
        fields = "\n".join(["\nFields of the config, with their defaults:", *lines])
    # All are defined in one module, so that absl lists them together.
    flags_ = values.get_help(include_special_flags=False).replace(f"{Flags.__module__}:", "Flags:")
    example = f"Example:\n  {PROGRAM} {name} {verb.example}"
    body = f"{verb.summary}\n\n{example}\n{flags_}\n{fields}".rstrip()
    return f"{body}\n\n{_statuses(name)}"


def _statuses(name: str) -> str:
    """Returns the exit statuses of a verb, in lines."""
    saved = "; what was trained is saved, and the same command goes on" if name == TRAIN else ""
    meanings = {
        0: "It is done.",
        USER_ERROR: "A mistake, which the standard error explains; or results that could not be "
        "printed.",
        LOST: "Another process of the run has ended or cannot be reached (134 if JAX says so).",
        130: f"Ctrl-C{saved}.",
        143: f"SIGTERM{saved}.",
    }
    if name not in (TRAIN, "evaluate"):
        del meanings[LOST]
    lines = [f"  {status:<5}{meaning}" for status, meaning in meanings.items()]
    return "\n".join(["Exit status, 1 after an unexpected error:", *lines])
