"""Compares models by training them: in equal time, and by the paper's ablations.

    python benchmarks/comparisons.py architectures --config=mnist --out=runs/mnist-20 \
        --tune_minutes=2 --minutes=20 [--config.FIELD=VALUE ...]
    python benchmarks/comparisons.py scales --config=cifar10 --out=runs/cifar10-scales \
        --minutes=20 [--config.FIELD=VALUE ...]
    python benchmarks/comparisons.py ablations --out=runs/ablations --steps=1500 \
        [--config.FIELD=VALUE ...]

`architectures` trains each architecture at each of three rates for a short time. The long run has
the best rate on validation and the weight decay, both multiplied by sqrt(tune_minutes / minutes):
this keeps the size of the weights, and the part of the run that they remember. The config sets
width and depth; the optimiser is Muon, with a warm-up and a whole cosine in each run. Add rates
where the highest or the lowest is the best.

`scales` trains a model of one scale, of several, and given one of ten classes, at one rate. Each
scale is a network of the size that is given.

The models are timed in turn before the runs; the median sets the steps that fit in the time, so
that a busy machine takes no steps from a run. Validations and pictures come on top of the time.

`ablations` trains small models of CIFAR-10 for the same steps on the same batches at the same rate,
with two seeds each. The figures of the continuous output are upper bounds.

Ctrl-C stops once the run has saved. The same command goes on: a complete run is not repeated, and
one of other settings is refused. A run that fails, as at a rate that is too high, has no figures.
"""

import argparse
import json
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import timing
from speed import first_state
from timing import all_turns, timer

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.model.layers import BODIES
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.config import Config, changed_fields, load_config, to_json, with_flags
from pixel_rnn_jax.runs.source import open_split
from pixel_rnn_jax.runs.workdir import read_config
from pixel_rnn_jax.system import devices
from pixel_rnn_jax.system.files import atomic_write
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.step import make_train_step
from pixel_rnn_jax.training.train import train

Fields = dict[str, object]
"""Values by the dotted name of a field of the config."""

RATES = [3e-3, 6e-3, 1.2e-2]
VALIDATIONS = 10
"""Validations of a long run, which are the points of its curve."""
MUON: Fields = {
    "optimizer.name": "muon",
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 100,
    "optimizer.weight_decay": 0.1,
}
SMALL: Fields = MUON | {
    "optimizer.learning_rate": 4e-3,
    "model.layers": 3,
    "model.features": 32,
    "model.head_features": 64,
}
ABLATIONS: dict[str, Fields] = {
    "1 layer": {"model.layers": 1},
    "2 layers": {"model.layers": 2},
    "3 layers": {},
    "6 layers": {"model.layers": 6},
    "6 layers, no skip": {"model.layers": 6, "model.skip": False},
    "6 layers, no residual": {"model.layers": 6, "model.residual": False},
    "6 layers, neither": {"model.layers": 6, "model.residual": False, "model.skip": False},
    "3 layers, logistic mixture": {"model.output": "discretized_logistic_mixture"},
    "3 layers, continuous": {"model.output": "logistic_mixture"},
}
"""What each differs in from `SMALL`, a Row LSTM."""
SCALES: dict[str, tuple[str, Fields]] = {
    "one scale": ("", {}),
    "several scales": (":multi_scale", {}),
    "one scale, given the class": ("", {"model.num_classes": 10}),
}
"""The variant of the config and the fields of each."""


def changed(config: Config, fields: Fields, flags: Sequence[str] = ()) -> Config:
    """Returns a config with other values of fields, at last those of `--config.FIELD=VALUE`."""
    return with_flags(config, [*(f"--config.{n}={value}" for n, value in fields.items()), *flags])


def long_run(steps: int) -> Fields:
    """Returns the fields of a run of so many steps, with its validations."""
    return {"train.steps": steps, "train.eval_every": math.ceil(steps / VALIDATIONS)}


def step_of(config: Config) -> Callable[[], None]:
    """Returns a function that makes a training step of a config, with reading its batch."""
    split, settings = open_split(config, "train"), config.train
    model = PixelRNN(config.model, split.image_shape, split.levels)
    mesh = devices.mesh_for(settings.batch_size // (settings.micro_batches or 1))
    # How long a step takes does not depend on the end of the schedule.
    optimizer = optimizers.build(config.optimizer, steps=10**6)
    decay = config.optimizer.ema_decay
    step = make_train_step(
        model, optimizer, mesh, ema_decay=decay, micro_batches=settings.micro_batches
    )
    state = first_state(model, optimizer, mesh, decay, config.seed)
    batches = data.train_batches(split, batch_size=settings.batch_size, seed=config.seed)

    def run() -> None:
        nonlocal state
        state, metrics = step(state, devices.shard_batch(mesh, next(batches)), None)
        jax.block_until_ready(metrics)

    return run


def steps_that_fit(
    configs: dict[str, Config], minutes: float, options: argparse.Namespace
) -> dict[str, int]:
    """Returns the steps that each model makes in a time; --out keeps them for the next call."""
    file, runs = options.out / "steps.json", {name: to_json(c) for name, c in configs.items()}
    if file.exists():
        stored = json.loads(file.read_bytes())
        if (stored["runs"], stored["minutes"]) != (runs, minutes):
            raise SystemExit(f"{file} is of another command: change --out")
    else:
        timers = {name: timer(step_of(config), options.seconds) for name, config in configs.items()}
        stored = {"runs": runs, "minutes": minutes, "times": all_turns(timers, options.rounds)}
        options.out.mkdir(parents=True, exist_ok=True)
        with atomic_write(file) as output:
            output.write(json.dumps(stored).encode())
    steps = {}
    for name, times in stored["times"].items():
        fits = sorted(60 * minutes / seconds for seconds in times)
        steps[name] = max(1, round(statistics.median(fits)))
        print(f"{name}: {fits[0]:,.0f} to {fits[-1]:,.0f} steps take {minutes:g} minutes")
    return steps


def trained(workdir: Path, config: Config) -> dict[str, Any] | None:
    """Trains or goes on; returns result.json with the time of training, None if training fails."""
    before = read_config(workdir) if (workdir / "config.json").exists() else config
    if differences := changed_fields(before, config):
        raise SystemExit(f"{workdir} has a run of other {', '.join(differences)}: change --out")
    result = workdir / "result.json"
    if not result.exists():
        try:
            train(config, workdir)
        except prnn.UserError as error:
            print(f"{workdir}: {error}", file=sys.stderr)
            return None
    records = (workdir / "metrics.jsonl").read_text().splitlines()
    return json.loads(result.read_bytes()) | {"seconds": json.loads(records[-1])["seconds"]}


HEAD = """\
| | rate | steps | seconds of training | validation, nats | test, nats | test, bits/dim |
| --- | --- | --- | --- | --- | --- | --- |"""


def row(name: str, config: Config, result: dict[str, Any] | None) -> str:
    """Returns the line of a table."""
    if result is None:
        return f"| {name} | failed | | | | | |"
    validation, test = result["validation"], result["test"]
    cells = [
        f"{config.optimizer.learning_rate:g}",
        f"{result['steps']:,}",
        f"{result['seconds']:.0f}",
        f"{validation['nats']:.3f} ± {validation['standard_error']:.3f}",
        f"{test['nats']:.3f} ± {test['standard_error']:.3f}",
        f"{test['bits_per_dim']:.4f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


def folder_name(name: str) -> str:
    """Returns the name of a run as that of its folder."""
    return name.replace(", ", "-").replace(" ", "-")


def architectures(options: argparse.Namespace, flags: list[str]) -> list[str]:
    """Searches the rate of each architecture, trains it, and returns the table."""
    lines = [HEAD]
    configs = {
        name: changed(load_config(f"{options.config}:{name}"), MUON, flags) for name in BODIES
    }
    for name, steps in steps_that_fit(configs, options.minutes, options).items():
        short = max(1, round(steps * options.tune_minutes / options.minutes))
        nats: dict[float, float] = {}  # Validation of each short run, by its rate.
        for rate in options.rates:
            fields = {"train.steps": short, "train.eval_every": short}
            config = changed(configs[name], fields | {"optimizer.learning_rate": rate})
            result = trained(options.out / f"{name}-{rate:g}", config)
            lines.append(row(f"{name}, short, {rate:g}", config, result))
            if result:
                nats[rate] = result["validation"]["nats"]
        if nats:
            values = min(nats, key=lambda rate: nats[rate]), config.optimizer.weight_decay
            scale = math.sqrt(options.tune_minutes / options.minutes)
            rate, decay = (float(f"{value * scale:.2g}") for value in values)
            fields = {"optimizer.learning_rate": rate, "optimizer.weight_decay": decay}
            config = changed(config, long_run(steps) | fields)
            result = trained(options.out / name, config)
        lines.append(row(name, config, result if nats else None))
    return lines


def scales(options: argparse.Namespace, flags: list[str]) -> list[str]:
    """Trains a model of one scale, of several, and given the class, and returns the table."""
    configs = {
        name: changed(load_config(f"{options.config}{variant}"), MUON | fields, flags)
        for name, (variant, fields) in SCALES.items()
    }
    lines = [HEAD]
    for name, steps in steps_that_fit(configs, options.minutes, options).items():
        config = changed(configs[name], long_run(steps))
        lines.append(row(name, config, trained(options.out / folder_name(name), config)))
    return lines


def ablations(options: argparse.Namespace, flags: list[str]) -> list[str]:
    """Trains the ablations with every seed and returns their table."""
    lines, steps = [HEAD], options.steps
    for seed in options.seeds:
        for name, fields in ABLATIONS.items():
            run = {"train.steps": steps, "train.eval_every": steps, "seed": seed}
            config = changed(load_config("cifar10:row_lstm"), SMALL | run | fields, flags)
            result = trained(options.out / f"{folder_name(name)}-seed-{seed}", config)
            lines.append(row(f"{name}, seed {seed}", config, result))
    return lines


def main(arguments: list[str] | None = None) -> None:
    """Prints the table of what the command line asks for."""
    flags = timing.parser(__doc__)
    commands = flags.add_subparsers(required=True)
    for compare in (architectures, scales, ablations):
        command = commands.add_parser(compare.__name__, help=compare.__doc__, allow_abbrev=False)
        command.set_defaults(compare=compare)
        command.add_argument("--out", type=Path, required=True, help="folder of the workdirs")
        if compare is ablations:
            command.add_argument("--steps", type=int, required=True, help="of a run")
            command.add_argument(
                "--seeds", type=int, nargs="+", default=[0, 1], help="default: 0 1"
            )
            continue
        command.add_argument("--config", required=True, help="as for train, without a variant")
        command.add_argument("--minutes", type=float, required=True, help="of a long run")
        timing.add_flags(command)
        if compare is architectures:
            command.add_argument("--tune_minutes", type=float, required=True, help="of a short run")
            command.add_argument(
                "--rates", type=float, nargs="+", default=RATES, help="default: %(default)s"
            )
    options, fields = flags.parse_known_args(arguments)
    if unknown := [field for field in fields if not field.startswith("--config.")]:
        flags.error(f"unknown: {' '.join(unknown)}")
    devices.set_up_host_devices()
    print("\n".join(options.compare(options, fields)))


if __name__ == "__main__":
    main()
