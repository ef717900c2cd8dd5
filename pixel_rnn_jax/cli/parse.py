"""The verbs, and how a command line names one of them with its flags."""

import difflib
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from absl import flags
from absl.flags import FlagValues
from ml_collections import config_flags

import pixel_rnn_jax as prnn
from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.cli.compress import compress, compress_flags, decompress, decompress_flags
from pixel_rnn_jax.cli.evaluate import evaluate, evaluate_flags
from pixel_rnn_jax.cli.flags import process_flags
from pixel_rnn_jax.cli.generate import complete, complete_flags, sample, sample_flags
from pixel_rnn_jax.cli.train import train
from pixel_rnn_jax.config import Config
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

    run: Callable[[FlagValues], None]
    define: Callable[[FlagValues], None]
    example: str
    trains: bool = False
    positional: str = ""


VERBS = {
    "train": Verb(
        train,
        process_flags,
        "--config=configs/mnist.py:row_lstm --config.train.steps=20000 --workdir=runs/a",
        trains=True,
    ),
    "evaluate": Verb(evaluate, evaluate_flags, "--workdir=runs/a --split=test"),
    "sample": Verb(sample, sample_flags, "--workdir=runs/a --n=64 --out=samples.png"),
    "complete": Verb(
        complete,
        complete_flags,
        "--workdir=runs/a --known=top_half --n=16 --out=completions.png",
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
    arguments = list(argv[1:])
    name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else ""
    if name and name not in VERBS:
        (nearest,) = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.0)
        raise UserError(f"there is no command {name}; did you mean {nearest}?")
    if {"-h", "--help"} & set(arguments):
        return functools.partial(print, _help(name) if name else _overview())
    if arguments == ["--version"]:
        return functools.partial(print, f"pixel-rnn-jax {prnn.__version__}")
    name = name or "train"
    verb = VERBS[name]
    values = _define(verb)
    source = _define_config(arguments, values) if verb.trains else None
    try:
        _, *words = values([PROGRAM, *arguments])
    except flags.Error as error:
        wrong = re.match(r"flag --config\.(\S+?)=(.*?): ", str(error), re.DOTALL)
        if not wrong:
            raise UserError(f"{name}: {error}") from error
        kind = config_lib.field_kind(wrong[1])
        raise UserError(f"{wrong[1]} must be {kind}, got {wrong[2]!r}") from error
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


def _define(verb: Verb) -> FlagValues:
    """Returns flags of the verb's own: verbs share names, and `parse` may be called again."""
    values = FlagValues()
    values.set_gnu_getopt(True)  # Flags may follow the positional argument.
    workdir = "Directory of a training run, or gs://BUCKET/FOLDER."
    if verb.trains:
        workdir += " One that was begun there goes on. Default: runs/NAME_OF_THE_CONFIG."
    flags.DEFINE_string("workdir", None, workdir, flag_values=values)
    verb.define(values)
    return values


def _define_config(arguments: list[str], values: FlagValues) -> str:
    """Defines --config, which it takes out of the arguments, and the overrides of its fields."""
    source = None
    for i, argument in reversed([*enumerate(arguments)]):
        if match := re.fullmatch(r"--?config(?:=(.*))?", argument):
            found = arguments.pop(i) and match[1]
            if found is None and i < len(arguments):
                found = arguments.pop(i)
            source = source or found  # The last one counts.
        elif override := re.match(r"--?(?:no)?config\.([^=]*)", argument):
            config_lib.field_kind(override[1])
    if not source:
        raise UserError("train needs --config=FILE, for example --config=configs/digits.py")
    config_flags.DEFINE_config_dict(
        "config",
        config_lib.load_config_dict(source),
        flag_values=values,
        sys_argv=[PROGRAM, *arguments],
    )
    return source


def _summary(verb: Verb) -> str:
    return (verb.run.__doc__ or "").partition("\n")[0]


def _overview() -> str:
    verbs = "\n".join(f"  {name:10} {_summary(verb)}" for name, verb in VERBS.items())
    return (
        f"Usage: {PROGRAM} [VERB] [FLAGS]\n\n{verbs}\n\n"
        f"Without a verb it is train. {PROGRAM} VERB --help shows the flags of a verb.\n\n"
        f"Example:\n  {PROGRAM} {VERBS['train'].example}"
    )


def _help(name: str) -> str:
    verb = VERBS[name]
    lines = [_summary(verb), "", "Example:", f"  {PROGRAM} {name} {verb.example}"]
    lines += [_define(verb).get_help(include_special_flags=False)]
    if verb.trains:
        lines += [
            "  --config: Config file, with its argument after a colon: configs/mnist.py:row_lstm.",
            "  --config.GROUP.FIELD: Overrides a field. The fields, with the values that they have "
            "where a config file gives none:",
        ]
        lines += [f"    --config.{field}={value}" for field, value in config_lib.leaves(Config())]
    return "\n".join(lines)
