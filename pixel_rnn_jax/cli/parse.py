"""The verbs, and how a command line names one of them with its flags."""

import difflib
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags
from ml_collections import config_flags

import pixel_rnn_jax as prnn
from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli.compress import compress, compress_flags, decompress, decompress_flags
from pixel_rnn_jax.cli.evaluate import evaluate, evaluate_flags
from pixel_rnn_jax.cli.flags import Flags, config_flag, process_flags, workdir_flag
from pixel_rnn_jax.cli.generate import complete, complete_flags, sample, sample_flags
from pixel_rnn_jax.cli.train import train
from pixel_rnn_jax.errors import UserError

PROGRAM = "python -m pixel_rnn_jax.main"


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        run: Does what its flags ask for; the first line of its docstring is the summary.
        define: Defines its flags, but for --workdir, which all have.
        example: The words of a typical call.
        trains: Whether it takes a config instead of the --workdir of a run.
        positional: Name of the positional argument, which is also a flag; "" for none.
    """

    run: Callable[[Flags], None]
    define: Callable[[Flags], None]
    example: str
    trains: bool = False
    positional: str = ""


VERBS = {
    "train": Verb(
        train,
        process_flags,
        "--config=mnist:row_lstm --config.train.steps=20000 --workdir=runs/a",
        trains=True,
    ),
    "evaluate": Verb(evaluate, evaluate_flags, "--workdir=runs/a --split=test"),
    "sample": Verb(sample, sample_flags, "--workdir=runs/a --n=64 --out=samples.png"),
    "complete": Verb(
        complete, complete_flags, "--workdir=runs/a --known=top_half --n=16 --out=completions.png"
    ),
    "compress": Verb(
        compress, compress_flags, "--workdir=runs/a --images=images.npz --out=images.prnn"
    ),
    "decompress": Verb(
        decompress,
        decompress_flags,
        "images.prnn --workdir=runs/a --out=images.npz",
        positional="file",
    ),
}


def parse(argv: Sequence[str]) -> Callable[[], None]:
    """Parses a command line: `[program, verb, flag, ...]`; without a verb it is `train`.

    Returns:
        What does the work, without arguments.

    Raises:
        UserError: A verb, a flag, a field or a file is unknown, or a value has the wrong type.
    """
    words = list(argv[1:])
    name = words.pop(0) if words and not words[0].startswith("-") else ""
    if name and name not in VERBS:
        (nearest,) = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.0)
        raise UserError(f"there is no command {name}; did you mean {nearest}?")
    if {"-h", "--help"} & set(words):
        return functools.partial(print, _help(name) if name else _overview())
    if "--version" in words:
        return functools.partial(print, f"pixel-rnn-jax {prnn.__version__}")
    name = name or "train"
    verb = VERBS[name]
    values = _define(verb)
    source, words = _define_config(values, words) if verb.trains else ("", words)
    words = _read(name, values, words)
    if words and verb.positional and not values[verb.positional].present:
        values[verb.positional].value = words.pop(0)
    if words:
        raise UserError(f"{name} takes nothing but flags, got {words[0]!r}")
    if source and not values.workdir:
        file, _, argument = source.partition(":")
        values["workdir"].value = f"runs/{Path(file).stem}" + (f"-{argument}" if argument else "")
    if not values.workdir:
        raise UserError(f"{name} needs --workdir=DIR, the directory of a training run")
    return functools.partial(verb.run, values)


def _define(verb: Verb) -> Flags:
    """Returns the flags of a verb, without those of a config."""
    values = Flags()
    workdir_flag(values, new=verb.trains)
    verb.define(values)
    return values


def _define_config(values: Flags, words: list[str]) -> tuple[str, list[str]]:
    """Defines overrides of the config that --config names; returns its name and the other words."""
    config = Flags()
    config_flag(config)
    words = _read("train", config, words, known_only=True)
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


def _summary(verb: Verb) -> str:
    return (verb.run.__doc__ or "").partition("\n")[0]


def _overview() -> str:
    verbs = "\n".join(f"  {name:11}{_summary(verb)}" for name, verb in VERBS.items())
    return (
        f"Usage: {PROGRAM} [VERB] [FLAGS]\n\n{verbs}\n\n"
        "Without a verb it is train. --help after a verb shows its flags; --version, the version."
        f"\n\nExample:\n  {PROGRAM} {VERBS['train'].example}"
    )


def _help(name: str) -> str:
    verb = VERBS[name]
    values = _define(verb)
    fields: list[str] = []
    if verb.trains:
        config_flag(values)
        fields += [
            "",
            "Fields of the config, which pixel_rnn_jax/config/schema.py describes, with the "
            "values that they",
            "have where a config file gives none:",
        ]
        fields += [
            f"  --config.{field}={value}" for field, value in config_lib.leaves(config_lib.Config())
        ]
    example = f"  {PROGRAM} {name} {verb.example}"
    help_ = values.get_help(include_special_flags=False)
    return "\n".join([_summary(verb), "", "Example:", example, help_, *fields])
