"""The command line, `python -m pixel_rnn_jax.main [VERB] [FLAGS]`: flags, then one call.

A verb is an entry of `VERBS`, with flags of its own; without one it is `train`.
"""

import difflib
import inspect
import os
import re
import runpy
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import ml_collections
from absl import flags
from ml_collections import config_flags

from pixel_rnn_jax import distributed
from pixel_rnn_jax.config import Config, field_kind, from_config_dict, leaves, to_config_dict
from pixel_rnn_jax.errors import UserError

PROGRAM = "python -m pixel_rnn_jax.main"


@dataclass(frozen=True)
class Verb:
    """One command.

    Attributes:
        summary: What it does, in a sentence.
        example: The flags of a typical call.
        define: Defines its flags.
        run: Makes the call that the parsed flags ask for.
        configurable: Whether it takes --config=FILE and overrides of its fields; the other verbs
            need the --workdir of a run.
        word: The flag that a word which is no flag stands for, if there is one.
    """

    summary: str
    example: str
    define: Callable[[flags.FlagValues], None]
    run: Callable[[flags.FlagValues], None]
    configurable: bool = False
    word: str = ""


def _define_train(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "workdir",
        None,
        "Directory of the run, or gs://BUCKET/a; one that was begun there goes on. Default: "
        "runs/NAME_OF_THE_CONFIG.",
        flag_values=values,
    )
    _define_processes(values)


def _train(values: flags.FlagValues) -> None:
    config = from_config_dict(values.config)
    _join(values)

    from pixel_rnn_jax import terminal, train

    terminal.say(f"workdir: {values.workdir}")

    train.train(config, values.workdir)


def _define_evaluate(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "split",
        "test",
        "Images to evaluate: train, validation or test, as the config of the run names them, or "
        "any split of the data set, such as 'test[:100]'. Default: test.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "pixel_map",
        None,
        "A .png file for a picture of where the nats are: the first images of the split, each "
        "beside the negative log-likelihood of its pixels. Default: none.",
        flag_values=values,
    )

    flags.DEFINE_string(
        "continuous",
        None,
        "With --dequantize: the workdir of a model that was trained with model.output=continuous.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "dequantize",
        None,
        "Compares the discrete model of --workdir with the density of --continuous, on so many "
        "draws of uniform noise for each image. Default: none.",
        lower_bound=1,
        flag_values=values,
    )
    _define_processes(values)


def _evaluate(values: flags.FlagValues) -> None:
    if bool(values.dequantize) != bool(values.continuous):
        raise UserError(
            "--dequantize=N and --continuous=DIR, the workdir of a continuous model, need each "
            "other"
        )
    _join(values)

    from pixel_rnn_jax import commands, compare, evaluate

    if values.pixel_map:
        commands.pixel_map(values.workdir, values.pixel_map, split=values.split)
    if values.dequantize:
        compare.compare(values.workdir, values.continuous, values.split, draws=values.dequantize)
        return
    evaluate.evaluate(values.workdir, split=values.split)


def _define_processes(values: flags.FlagValues) -> None:
    flags.DEFINE_bool(
        "distributed",
        None,
        "Joins the processes that the cluster has started: Cloud TPU, SLURM, Open MPI, Kubernetes. "
        "Default: where SLURM, Open MPI or a TPU's environment names several; --nodistributed "
        "never.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "coordinator",
        None,
        "Joins the processes that were given the same HOST:PORT, where the first one waits.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "num_processes", None, "With --coordinator: how many there are.", flag_values=values
    )
    flags.DEFINE_integer(
        "process_id", None, "With --coordinator: which one this is, from 0 on.", flag_values=values
    )


def _join(values: flags.FlagValues) -> None:
    distributed.join(
        values.coordinator, values.num_processes, values.process_id, cluster=values.distributed
    )


def _define_out(values: flags.FlagValues, default: str) -> None:
    flags.DEFINE_string(
        "out",
        default,
        "Where the images go: a .png file for a picture to look at, an .npz file for an array "
        "`images`, or a new folder for a PNG file each, which hold the values unscaled. Default: "
        f"{default}.",
        flag_values=values,
    )


def _define_seed(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "seed",
        0,
        "Of the random draws; the same seed gives the same images. Default: 0.",
        lower_bound=0,
        upper_bound=2**32 - 1,
        flag_values=values,
    )


def _define_sample(values: flags.FlagValues) -> None:
    flags.DEFINE_integer(
        "n",
        None,
        "Number of images. Default: 64, or 10 of each class.",
        lower_bound=1,
        flag_values=values,
    )
    _define_out(values, "samples.png")
    flags.DEFINE_float(
        "temperature",
        1.0,
        "What the logits are divided by: below 1 the likely becomes likelier, and 0 takes the most "
        "probable value of each pixel. Default: 1, the model itself.",
        lower_bound=0,
        flag_values=values,
    )
    flags.DEFINE_integer(
        "label",
        None,
        "Of a model with classes: the class of all images. Default: as many of each class, and in "
        "a picture a row for each class if --n is a multiple of their number.",
        lower_bound=0,
        flag_values=values,
    )
    _define_seed(values)


def _sample(values: flags.FlagValues) -> None:
    from pixel_rnn_jax import commands

    commands.sample(
        values.workdir,
        values.out,
        n=values.n,
        temperature=values.temperature,
        seed=values.seed,
        label=values.label,
    )


def _define_complete(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "images",
        None,
        "Images to complete: a folder, or an .npy or .npz file (for a model with classes an .npz "
        "file with an array `labels`). Default: the run's test split.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "n",
        None,
        "Number of images, from the first on. Default: all of --images, or 16 of the test split.",
        lower_bound=1,
        flag_values=values,
    )
    flags.DEFINE_string(
        "known",
        "top_half",
        "What is known of each: top_half, bottom_half, left_half, right_half, or an image file of "
        "the same size in which what is known is white. Default: top_half.",
        flag_values=values,
    )
    flags.DEFINE_integer(
        "particles",
        1,
        "With 1, values are drawn given what is above and to the left. More, such as 64, take "
        "known values further on into account. Default: 1.",
        lower_bound=1,
        flag_values=values,
    )
    _define_out(values, "completions.png")
    _define_seed(values)


def _complete(values: flags.FlagValues) -> None:
    from pixel_rnn_jax import commands

    commands.complete(
        values.workdir,
        values.out,
        images=values.images,
        n=values.n,
        known=values.known,
        particles=values.particles,
        seed=values.seed,
    )


def _define_compress(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "images",
        None,
        "Images to compress: a folder, or an .npy or .npz file (for a model with classes an .npz "
        "file with an array `labels`). A folder's are taken in the order of their names, which are "
        "not kept.",
        flag_values=values,
    )
    flags.DEFINE_string(
        "out", "images.prnn", "The compressed file. Default: images.prnn.", flag_values=values
    )


def _compress(values: flags.FlagValues) -> None:
    if not values.images:
        raise UserError("compress needs --images=PATH, a folder or an .npy or .npz file")

    from pixel_rnn_jax import commands

    commands.compress(values.workdir, values.out, images=values.images)


def _define_decompress(values: flags.FlagValues) -> None:
    flags.DEFINE_string(
        "file", None, "The compressed file; --file= may be left out.", flag_values=values
    )
    _define_out(values, "images.npz")
    flags.DEFINE_bool(
        "skip_damaged",
        False,
        "Leaves out the images of damaged blocks instead of stopping at the first.",
        flag_values=values,
    )


def _decompress(values: flags.FlagValues) -> None:
    if not values.file:
        raise UserError("decompress needs a file, for example decompress images.prnn")

    from pixel_rnn_jax import commands

    commands.decompress(
        values.workdir, values.out, file=values.file, skip_damaged=values.skip_damaged
    )


VERBS = {
    "train": Verb(
        summary="Trains a model, or goes on with the run that its workdir holds.",
        example="--config=configs/mnist.py:row_lstm --config.train.steps=20000 --workdir=runs/a",
        define=_define_train,
        run=_train,
        configurable=True,
    ),
    "evaluate": Verb(
        summary="Prints the likelihood of every image of a split, in nats and bits/dim.",
        example="--workdir=runs/a --split=test",
        define=_define_evaluate,
        run=_evaluate,
    ),
    "sample": Verb(
        summary="Draws new images.",
        example="--workdir=runs/a --n=64 --out=samples.png",
        define=_define_sample,
        run=_sample,
    ),
    "complete": Verb(
        summary="Draws the unknown part of images given the known one.",
        example="--workdir=runs/a --known=top_half --n=16 --out=completions.png",
        define=_define_complete,
        run=_complete,
    ),
    "compress": Verb(
        summary="Compresses images without loss.",
        example="--workdir=runs/a --images=images.npz --out=images.prnn",
        define=_define_compress,
        run=_compress,
    ),
    "decompress": Verb(
        summary="Returns the images that `compress` was given.",
        example="images.prnn --workdir=runs/a --out=images.npz",
        define=_define_decompress,
        run=_decompress,
        word="file",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: The words after the program's name; None takes those of the process.

    Returns:
        The exit status: 0, 2 after a `UserError` (printed as one line), 130 after Ctrl-C.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        name = arguments.pop(0) if arguments and not arguments[0].startswith("-") else None
        if name is not None and name not in VERBS:
            (nearest,) = difflib.get_close_matches(name, VERBS, n=1, cutoff=0.0)
            raise UserError(f"there is no command {name}; did you mean {nearest}?")
        if {"-h", "--help"} & set(arguments):
            print(_help(name) if name else _overview())
            return 0
        name = name or "train"
        values = _parse(name, arguments)

        from pixel_rnn_jax import parallel

        parallel.set_up_host_devices()
        VERBS[name].run(values)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return distributed.USER_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


def run() -> NoReturn:
    """Runs `main` as the whole of a process, perhaps one of several that wait for each other."""
    if os.getpid() == 1:  # In a container: the first process ignores what it does not handle.
        signal.signal(signal.SIGTERM, lambda number, frame: os._exit(128 + number))
    error = None
    try:
        status = main()
    except Exception as unexpected:  # An OSError, where the error itself cannot be printed.
        if not distributed.joined():
            raise
        status, error = 1, unexpected
    if status and distributed.joined():
        distributed.end(status, error)
    sys.exit(status)


def _new_flags(verb: Verb) -> flags.FlagValues:
    # Each verb has its own flags, and main() may be called more than once in a process: absl's one
    # global set of flags will not do.
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # Flags may follow the word that is none.
    if not verb.configurable:
        flags.DEFINE_string("workdir", None, "Directory of a training run.", flag_values=values)
    verb.define(values)
    return values


def _parse(name: str, arguments: list[str]) -> flags.FlagValues:
    """Returns the flags of a verb; `.config` of a configurable one is a ConfigDict with overrides.

    Raises:
        UserError: A flag, a field or a file is unknown, or a value has the wrong type.
    """
    verb = VERBS[name]
    values = _new_flags(verb)
    source = None
    if verb.configurable:
        source, arguments = _take_config(arguments)
        if not source:
            raise UserError(f"{name} needs --config=FILE, for example --config=configs/digits.py")
        for argument in arguments:
            override = re.match(r"--?(?:no)?config\.([^=]*)", argument)
            if override:
                field_kind(override[1])
        config_flags.DEFINE_config_dict(
            "config", _load_config(source), flag_values=values, sys_argv=[PROGRAM, *arguments]
        )
    try:
        _, *unexpected = values([PROGRAM, *arguments])
    except flags.UnrecognizedFlagError as error:
        raise UserError(
            f"{name} has no flag --{error.flagname}; see {PROGRAM} {name} --help"
        ) from error
    except flags.IllegalFlagValueError as error:
        wrong = re.match(r"flag --config\.(\S+?)=(.*?): ", str(error), re.DOTALL)
        if not wrong:
            raise UserError(str(error)) from error
        raise UserError(f"{wrong[1]} must be {field_kind(wrong[1])}, got {wrong[2]!r}") from error
    except flags.Error as error:
        raise UserError(str(error)) from error
    if unexpected and verb.word and not values[verb.word].present:
        values[verb.word].value = unexpected.pop(0)
    if unexpected:
        raise UserError(f"{name} takes nothing but flags, got {unexpected[0]!r}")
    if not verb.configurable and not values.workdir:
        raise UserError(f"{name} needs --workdir=DIR, the directory of a training run")
    if source and not values.workdir:
        file, _, argument = source.partition(":")
        values["workdir"].value = f"runs/{Path(file).stem}" + (f"-{argument}" if argument else "")
    return values


def _take_config(arguments: list[str]) -> tuple[str | None, list[str]]:
    """Returns the value of the last --config (None without one) and the other arguments."""
    source, others = None, []
    remaining = iter(arguments)
    for argument in remaining:
        match = re.fullmatch(r"--?config(?:=(.*))?", argument)
        if match:
            source = next(remaining, None) if match[1] is None else match[1]
        else:
            others.append(argument)
    return source, others


def _load_config(source: str) -> ml_collections.ConfigDict:
    """Returns what the config file FILE or FILE:ARGUMENT gives, checked and with every field."""
    # config_flags.DEFINE_config_file would do this with the importlib call that Python deprecates,
    # and would turn an error of get_config into the text of a traceback.
    file, _, argument = source.partition(":")
    if not Path(file).is_file():
        raise UserError(f"--config={source} names no file: there is no {file}")
    get_config = runpy.run_path(file).get("get_config")
    if not callable(get_config):
        raise UserError(f"{file} is no config file: it defines no function get_config")
    if argument and not inspect.signature(get_config).parameters:
        raise UserError(f"{file} takes no argument after a colon, got {argument!r}")
    return to_config_dict(from_config_dict(get_config(argument) if argument else get_config()))


def _overview() -> str:
    verbs = "\n".join(f"  {name:10} {verb.summary}" for name, verb in VERBS.items())
    return (
        f"Usage: {PROGRAM} [VERB] [FLAGS]\n\n{verbs}\n\n"
        f"Without a verb it is train. {PROGRAM} VERB --help shows the flags of a verb.\n\n"
        f"Example:\n  {PROGRAM} {VERBS['train'].example}"
    )


def _help(name: str) -> str:
    verb = VERBS[name]
    values = _new_flags(verb)
    lines = [verb.summary, "", "Example:", f"  {PROGRAM} {name} {verb.example}", "", "Flags:"]
    if verb.configurable:
        lines += [
            "  --config  Config file, with its argument after a colon: configs/mnist.py:row_lstm.",
            "  --config.GROUP.FIELD  Overrides a field of the config.",
        ]
    lines += [f"  --{flag}  {values[flag].help}" for flag in values]
    if verb.configurable:
        lines += ["", "Fields, with the values that they have where a config file gives none:"]
        lines += [f"  --config.{field}={value}" for field, value in leaves(Config())]
    return "\n".join(lines)


if __name__ == "__main__":
    run()
