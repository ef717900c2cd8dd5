"""Compares models by training them: in equal time, and by the paper's ablations.

    python benchmarks/comparisons.py architectures --config=mnist --out=runs/mnist-20 \
      --tune_minutes=2 --minutes=20 [FLAGS OF TRAIN]
    python benchmarks/comparisons.py scales --config=cifar10 --out=runs/cifar10-scales \
      --minutes=20 [FLAGS OF TRAIN]
    python benchmarks/comparisons.py ablations --out=runs/ablations --steps=1500 [FLAGS OF TRAIN]

`architectures` gives each of the three the same time for its steps and the same search for its
rate: one short run for each of three rates, and the best of them on validation for the long run.
They have the width and depth of the config, so that their parameters differ in number. Each run is
by Muon with weight decay, whatever the config says, with a warm-up and a whole cosine of its own. A
short run bears a higher rate than a long one, so give it a good part of the time, and look for more
rates where the best is the last of them.

`scales` gives a model of one scale, the same with several, and the same given one of ten classes
the same time for their steps at the same rate, which is not searched, and measures, in turn, how
long each takes to draw. Each scale is a network of the size that is given, so that several have
more parameters.

For both, the steps that fit in the time are found before the runs, with nothing else running: the
models are timed in turn, several times, and the median counts. What runs beside them later makes a
run longer, but does not take steps from it. Validations and pictures come on top of the time.

`ablations` trains small models of CIFAR-10 for the same steps on the same batches at the same rate,
which is not searched, with two seeds each: without residual or skip connections, of several depths,
and with several outputs. They ask what the paper's ablations ask, at a smaller size: the paper's
have 12 layers and RMSProp, so that the figures do not compare. The continuous output is a density
of noisy values, so that its figures are upper bounds. `--share=0/2` and `--share=1/2` share the
runs out over two commands, each of which prints its own; without --share all are printed.

Flags that none of them knows go to every run. Ctrl-C stops once the run has saved. The same command
goes on: a run that is complete is not repeated, and one of other settings is refused. The figures
of each run are in its workdir. A run that fails, as at a rate that is too high, has no figures, and
the others go on.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
from training import median_seconds

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data, report
from pixel_rnn_jax.cli.parse import parse
from pixel_rnn_jax.config import ARCHITECTURES, from_config_dict
from pixel_rnn_jax.errors import USER_ERROR, UserError
from pixel_rnn_jax.report import RunFacts
from pixel_rnn_jax.report.facts import Likelihood
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import evaluate, minutes

RATES = (3e-3, 6e-3, 1.2e-2)
VALIDATIONS = 10
"""Validations of a long run, which are the points of its curve."""
ROUNDS = 5
"""How often each model is timed, in training and in drawing."""

TUNED = {
    "optimizer.name": "muon",
    "optimizer.schedule": "cosine",
    "optimizer.warmup_steps": 100,
    "optimizer.weight_decay": 0.1,
}
SMALL = TUNED | {
    "optimizer.learning_rate": 4e-3,
    "model.layers": 3,
    "model.features": 32,
    "model.head_features": 64,
}
ABLATIONS: dict[str, dict[str, object]] = {
    "1 layer": {"model.layers": 1},
    "2 layers": {"model.layers": 2},
    "3 layers": {},
    "6 layers": {"model.layers": 6},
    "6 layers, no skip": {"model.layers": 6, "model.skip": "false"},
    "6 layers, no residual": {"model.layers": 6, "model.residual": "false"},
    "6 layers, neither": {"model.layers": 6, "model.residual": "false", "model.skip": "false"},
    "3 layers, logistic mixture": {"model.output": "discretized_logistic_mixture"},
    "3 layers, continuous": {"model.output": "logistic_mixture"},
}
"""What each differs in from `SMALL`, a Row LSTM."""

SCALES = {
    "one scale": ("", {}),
    "several scales": (":multi_scale", {}),
    "one scale, given the class": ("", {"model.num_classes": 10}),
}
"""The variant of the config and the fields of each."""

DRAWN, REPEATS = 16, 7
"""Images that are drawn to see how long it takes, and how often."""


def command_words(config: str, fields: dict[str, object], more: list[str]) -> list[str]:
    """Returns the words of a command that trains, without its workdir."""
    flags = [f"--config.{name}={value}" for name, value in fields.items()]
    return ["train", f"--config={config}", *flags, *more]


def measured(what: str, *words: str) -> float:
    """Returns what one of `MEASURES` finds of these words in a process of its own."""
    command = [sys.executable, __file__, "--measure", what, *words]
    try:
        run = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    except KeyboardInterrupt:
        raise SystemExit("stopped; the same command goes on") from None
    if run.returncode:
        raise SystemExit(run.returncode)  # It has said why.
    return float(run.stdout.split()[-1])  # After what a run says of itself.


def steps_of(runs: dict[str, list[str]], out: Path) -> dict[str, int]:
    """Times runs in turn, and returns the steps that each makes in its `train.minutes`.

    They are kept in `out`, so that the same command finds the same.
    """
    file, steps = out / "steps.json", {name: list[int]() for name in runs}
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["runs"] != runs:
            raise SystemExit(f"{file} is of another command: remove it, or give another --out")
        steps = kept["steps"]
    for done in range(ROUNDS):
        for name, words in runs.items():
            if len(steps[name]) > done:
                continue
            steps[name].append(round(measured("steps", *words)))
            out.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"runs": runs, "steps": steps}))
    for name, counts in steps.items():
        print(f"{name}: the time is that of {min(counts):,} to {max(counts):,} steps", flush=True)
    return {name: round(statistics.median(counts)) for name, counts in steps.items()}


def trained(
    workdir: Path, config: str, fields: dict[str, object], more: list[str]
) -> RunFacts | None:
    """Trains in a process of its own, or goes on with what is there, and reads the result.

    Returns:
        None for a run that would only fail again, such as one whose loss is not finite any more; it
        has said why.
    """
    words, told = command_words(config, fields, more), workdir / "command.json"
    begun = (workdir / "config.json").exists()
    if begun and not (told.exists() and json.loads(told.read_text()) == words):
        raise SystemExit(f"{workdir} is of another command: remove it, or give another --out")
    result = workdir / "result.json"
    if not result.exists():
        workdir.mkdir(parents=True, exist_ok=True)
        told.write_text(json.dumps(words))
        command = [sys.executable, "-m", "pixel_rnn_jax.main", *words, f"--workdir={workdir}"]
        process = subprocess.Popen(command)
        try:
            process.wait()
        except KeyboardInterrupt:
            process.wait()  # The run has had the signal as well, and saves.
        if not result.exists() and process.returncode == USER_ERROR:
            return None
    if not result.exists():
        raise SystemExit(f"{workdir} is not complete; the same command goes on with it")
    return report.read_run(str(workdir), pixel_map=False)


def validation(run: RunFacts) -> Likelihood:
    """Returns the best validation of a run that is complete."""
    assert run.best_validation is not None
    return run.best_validation[1]


def row(name: str, run: RunFacts | None) -> str:
    """Returns the line of a table."""
    if run is None:
        return f"| {name} | failed | | | | | |"
    assert run.result is not None
    own, test = validation(run), run.result.test
    cells = [
        f"{run.config.optimizer.learning_rate:g}",
        f"{run.result.steps:,}",
        f"{run.seconds or 0:.0f}",
        f"{own.nats:.3f} ± {own.standard_error:.3f}",
        f"{test.nats:.3f} ± {test.standard_error:.3f}",
        f"{test.bits_per_dim:.4f}",
    ]
    return f"| {name} | {' | '.join(cells)} |"


HEAD = """\
| | rate | steps | seconds of training | validation, nats | test, nats | test, bits/dim |
| --- | --- | --- | --- | --- | --- | --- |"""


def rates(text: str) -> list[float]:
    """Parses --rates."""
    return [float(rate) for rate in text.split(",")]


def share(text: str) -> slice:
    """Parses --share: which runs of a list it takes."""
    number, count = map(int, text.split("/"))
    if not 0 <= number < count:
        raise ValueError(text)
    return slice(number, None, count)


def folder_name(name: str) -> str:
    """Returns the name of a run as that of its folder."""
    return name.replace(", ", "-").replace(" ", "-")


def compare_architectures(given: argparse.Namespace, more: list[str]) -> list[str]:
    """Searches the rate of each architecture, trains it, and returns the table."""
    lines, timed = [HEAD], TUNED | {"train.minutes": given.minutes}
    configs = {name: f"{given.config}:{name}" for name in ARCHITECTURES}
    runs = {name: command_words(config, timed, more) for name, config in configs.items()}
    for name, steps in steps_of(runs, given.out).items():
        config = configs[name]
        short: dict[float, RunFacts] = {}
        for rate in given.rates:
            part = max(1, round(steps * given.tune_minutes / given.minutes))
            fields = TUNED | {"optimizer.learning_rate": rate, "train.steps": part}
            fields |= {"train.eval_every": part, "train.log_every": 100}
            workdir = given.out / f"{name}-{rate:g}"
            run = trained(workdir, config, fields, more)
            lines.append(row(f"{name}, short, {rate:g}", run))
            if run:
                short[rate] = run
        if not short:
            lines.append(row(name, None))
            continue
        best = min(short, key=lambda rate: validation(short[rate]).nats)
        fields = TUNED | {"optimizer.learning_rate": best, "train.steps": steps}
        fields |= {"train.eval_every": math.ceil(steps / VALIDATIONS)}
        lines.append(row(name, trained(given.out / name, config, fields, more)))
    return lines


def compare_ablations(given: argparse.Namespace, more: list[str]) -> list[str]:
    """Trains the ablations of this share and returns their table."""
    lines = [HEAD]
    runs = [(name, seed) for seed in range(given.seeds) for name in ABLATIONS]
    for name, seed in runs[given.share]:
        fields = SMALL | {"train.steps": given.steps, "train.eval_every": given.steps, "seed": seed}
        workdir = given.out / f"{folder_name(name)}-seed-{seed}"
        run = trained(workdir, "cifar10:row_lstm", fields | ABLATIONS[name], more)
        lines.append(row(f"{name}, seed {seed}", run))
    return lines


def planned_steps(*words: str) -> int:
    """Returns the steps that a run by these words makes in its `train.minutes`."""
    config = from_config_dict(parse(["", *words]).args[0].config)
    source = data.open_source(config, "train")
    mesh = devices.mesh_for(config.train.batch_size // (config.train.micro_batches or 1))
    model = evaluate.format_of(source).model(config.model)
    return minutes.timed(config, model, mesh, source, None).train.steps


def drawing_seconds(workdir: str) -> float:
    """Returns how long the model of a workdir takes to draw images, once it is compiled."""
    model = prnn.load(workdir)
    classes = model.config.num_classes
    condition = np.arange(DRAWN) % classes if classes else None
    return median_seconds(lambda: model.sample(jax.random.key(0), DRAWN, condition), REPEATS)


MEASURES: dict[str, Callable[..., float]] = {"steps": planned_steps, "drawing": drawing_seconds}
"""What `measured` measures in a process of its own, on all devices."""


def compare_scales(given: argparse.Namespace, more: list[str]) -> list[str]:
    """Trains a model of one scale, of several, and given the class, and returns the table."""
    lines, timed = [HEAD], TUNED | {"train.minutes": given.minutes}
    drawing: dict[str, list[float]] = {}
    configs = {name: f"{given.config}{variant}" for name, (variant, _) in SCALES.items()}
    runs = {
        name: command_words(configs[name], timed | own, more) for name, (_, own) in SCALES.items()
    }
    for name, steps in steps_of(runs, given.out).items():
        fields = TUNED | SCALES[name][1]
        fields |= {"train.steps": steps, "train.eval_every": math.ceil(steps / VALIDATIONS)}
        workdir = given.out / folder_name(name)
        run = trained(workdir, configs[name], fields, more)
        lines.append(row(name, run))
        if run:
            drawing[name] = []
    for _ in range(ROUNDS):
        for name, seconds in drawing.items():
            seconds.append(measured("drawing", str(given.out / folder_name(name))))
    lines.append("")
    for name, seconds in drawing.items():
        lines.append(f"{name}: {DRAWN} images in {statistics.median(seconds):.3f} s")
    return lines


def main() -> None:
    """Prints the table of what the command line asks for."""
    if sys.argv[1:2] == ["--measure"]:
        devices.set_up_host_devices()
        try:
            print(MEASURES[sys.argv[2]](*sys.argv[3:]))
        except UserError as error:
            raise SystemExit(f"error: {error}") from None
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(required=True)
    architectures = verbs.add_parser(
        "architectures", help="the three in equal time", allow_abbrev=False
    )
    architectures.add_argument("--tune_minutes", type=float, required=True, help="of a short one")
    architectures.add_argument(
        "--rates", type=rates, default=RATES, help="to choose from; default: %(default)s"
    )
    scales = verbs.add_parser("scales", help="one, several, and classes", allow_abbrev=False)
    for verb in (architectures, scales):
        verb.add_argument("--config", required=True, help="as for train, without a variant")
        verb.add_argument("--minutes", type=float, required=True, help="of a long run")
    ablations = verbs.add_parser("ablations", help="the paper's, on CIFAR-10", allow_abbrev=False)
    ablations.add_argument("--steps", type=int, required=True, help="of a run")
    ablations.add_argument("--seeds", type=int, default=2, help="default: %(default)s")
    ablations.add_argument(
        "--share", type=share, default="0/1", help="which of how many; default: %(default)s"
    )
    for verb in (architectures, scales, ablations):
        verb.add_argument("--out", type=Path, required=True, help="folder of the workdirs")
    architectures.set_defaults(compare=compare_architectures)
    scales.set_defaults(compare=compare_scales)
    ablations.set_defaults(compare=compare_ablations)
    given, more = parser.parse_known_args()
    print("\n".join(given.compare(given, more)))


if __name__ == "__main__":
    main()
