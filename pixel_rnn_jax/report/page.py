"""The HTML of a page about runs: one file, which opens offline."""

import base64
import itertools
import time
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import pixel_rnn_jax as prnn
from pixel_rnn_jax import pictures
from pixel_rnn_jax.config import Config, ModelConfig, leaves
from pixel_rnn_jax.report import curves
from pixel_rnn_jax.report.extra import library
from pixel_rnn_jax.report.facts import Likelihood, RunFacts

TEMPLATE = "page.html.jinja"
NONE = "–"
"""What a table has where there is nothing to say."""


class Field(NamedTuple):
    """A field of the config of a run, as the page writes its value."""

    name: str
    value: str
    default: str

    @property
    def changed(self) -> bool:
        """Whether the value is not the default."""
        return self.value != self.default


class Shown(NamedTuple):
    """A picture on the page: what it is, its `data:` address and what stands below it.

    A map also says how many nats its darkest and its lightest colour are.
    """

    title: str
    address: str
    caption: str
    least: str = ""
    largest: str = ""


def check_extra() -> None:
    """Checks, before any work, that Jinja2 and Matplotlib are installed.

    Raises:
        UserError: They are not.
    """
    for name in ("jinja2", "matplotlib"):
        library(name)


def render(runs: Sequence[RunFacts]) -> str:
    """Returns the page about one run or several: HTML that refers to nothing outside itself.

    Raises:
        UserError: Jinja2 or Matplotlib is not installed.
    """
    jinja2 = library("jinja2")
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(
        Path(__file__).with_name(TEMPLATE).read_text(encoding="utf-8")
    )
    names = run_names([run.workdir for run in runs])
    fields = [_fields(run.config) for run in runs]
    html: str = template.render(
        title=", ".join(names) if len(names) <= MOST_NAMES else f"{len(names)} runs",
        version=prnn.__version__,
        made=time.strftime("%d %B %Y, %H:%M"),
        headings=HEADINGS,
        runs=[
            {
                "name": name,
                "style": curves.style(number),
                "row": _row(run),
                "workdir": run.workdir,
                "summary": _summary(run),
                "state": _state(run),
                "complete": _is_complete(run),
                "pictures": _pictures(run),
                "pixel_map": _pixel_map(run),
                "why_no_map": run.why_no_map,
                "changed": [field for field in own if field.changed],
                "fields": sorted(own, key=lambda field: not field.changed),
                "facts": _facts(run),
            }
            for number, (name, run, own) in enumerate(zip(names, runs, fields, strict=True))
        ],
        panels=[
            (panel.title, _address(panel.light, SVG), _address(panel.dark, SVG))
            for panel in curves.draw(runs)
        ],
        without_time=[name for name, run in zip(names, runs, strict=True) if _lacks_time(run)],
        differences=_differences(fields),
        notes=_notes(runs),
    )
    return html


MOST_NAMES = 3
SVG, PNG = "image/svg+xml", "image/png"


def run_names(workdirs: Sequence[str]) -> list[str]:
    """Returns the last part of each path, or more parts where several have the same."""
    parts = [PurePosixPath(workdir).parts for workdir in workdirs]
    count = 1
    while len({path[-count:] for path in parts}) < len({*parts}):
        count += 1
    return [
        "/".join(path[-count:]).replace("//", "/") or workdir
        for path, workdir in zip(parts, workdirs, strict=True)
    ]


def _address(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# ---- Words --------------------------------------------------------------------------------------


def duration(seconds: float | None) -> str:
    """Returns a time in two units at most: "48 s", "3 min 05 s", "2 h 07 min", "3 d 04 h"."""
    if seconds is None:
        return NONE
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (name, size), (smaller, part) in itertools.pairwise(units):
        if seconds >= size:
            whole, rest = divmod(round(seconds / part), size // part)
            return f"{whole} {name} {rest:02} {smaller}"
    raise AssertionError(seconds)


def _nats(found: Likelihood | None) -> str:
    if found is None:
        return NONE
    error = "" if found.standard_error is None else f" ± {found.standard_error:.3f}"
    return f"{found.nats:.3f}{error}"


def _bits(found: Likelihood | None) -> str:
    return NONE if found is None or found.bits_per_dim is None else f"{found.bits_per_dim:.4f}"


def _value(value: Any) -> str:
    """Returns the value of a field as one writes it on the command line."""
    match value:
        case "" | ():
            return "(empty)"
        case bool():
            return str(value).lower()
        case tuple():
            return ", ".join(map(str, value))
    return str(value)


def _architecture(model: ModelConfig) -> str:
    names = {"pixel_cnn": "PixelCNN", "row_lstm": "Row LSTM", "diagonal_bilstm": "Diagonal BiLSTM"}
    used = dict.fromkeys(model.scale_architectures or (model.architecture,))
    return " and ".join(names.get(name, name) for name in used)


def _summary(run: RunFacts) -> str:
    """Returns a line about the model and its images."""
    model, images = run.config.model, run.image_format
    size = f"{model.layers} layer{'s' * (model.layers != 1)}, h={model.features}"
    scales = f", scales {_value(model.scales)}" if model.scales else ""
    given = f", {model.num_classes} classes" if model.num_classes else ""
    values = f"{images.levels} levels" if images.levels else "real values"
    shape = "×".join(map(str, images.image_shape))
    return (
        f"{_architecture(model)}, {size}{scales}{given}, {model.output} output; images {shape} of "
        f"{values}, {run.config.data.name}"
    )


# ---- Parts of the page --------------------------------------------------------------------------


def _is_complete(run: RunFacts) -> bool:
    """Whether the result is of all steps that the run has made; it may have gone on since."""
    return run.result is not None and run.step <= run.result.steps


def _has_ended(run: RunFacts) -> bool:
    """Whether the run has ended and has no result, as one of `fit` never has."""
    if run.result is not None:
        return False
    best, settings = run.best_validation, run.config.train
    waited = run.step - best[0] if best else 0
    impatient = 0 < settings.patience * settings.eval_every <= waited
    return impatient or run.step >= settings.steps


def _state(run: RunFacts) -> str:
    """Returns a sentence about how far the run is."""
    at = f"it is at step {run.step:,} of {run.config.train.steps:,}"
    made = run.result.steps if run.result else run.step
    stopped = run.config.train.patience and made < run.config.train.steps
    if _has_ended(run):
        how = "its validation had stopped improving" if stopped else "all steps are made"
        return (
            f"This run has ended after {made:,} steps: {how}. There is no figure on a test split."
        )
    if run.result is None:
        return f"This run is not complete yet: {at}."
    if not _is_complete(run):
        return (
            f"This run has gone on since its result, which is of {run.result.steps:,} steps: {at}."
        )
    done = f"This run is complete, after {made:,} steps"
    return f"{done}: its validation had stopped improving." if stopped else f"{done}."


HEADINGS = (
    "test, nats",
    "test, bits/dim",
    "independent pixels, nats",
    "best validation, nats",
    "of step",
    "steps made",
    "test images",
    "time",
)


def _row(run: RunFacts) -> list[str]:
    """Returns a row of the table of results, below `HEADINGS`."""
    result, best = run.result, run.best_validation
    test, baseline = (result.test, result.baseline) if result else (None, None)
    step = result.step if result else best[0] if best else None
    made, steps = _has_ended(run), f"{run.step:,}"
    return [
        _nats(test) if test or made else "not complete yet",
        _bits(test),
        _nats(baseline),
        _nats(best[1] if best else None),
        NONE if step is None else f"{step:,}",
        steps if made or _is_complete(run) else f"{steps} of {run.config.train.steps:,}",
        f"{result.images:,}" if result else NONE,
        duration(run.seconds),
    ]


def _notes(runs: Sequence[RunFacts]) -> list[str]:
    """Returns what a reader has to know to compare the figures."""
    notes = [
        "A test figure is the mean negative log-likelihood of a test image ± its standard error, "
        "with the parameters that validate best. Independent pixels are the baseline that knows "
        "how often each position has which value, and nothing else. Lower is better."
    ]
    if len({_data(run) for run in runs}) > 1:
        notes.append(
            "These runs have different data, so that their figures cannot be compared with each "
            "other."
        )
    if any(not run.image_format.levels for run in runs):
        notes.append(
            "Of real values the figure is a density, in nats per unit of theirs: it has no "
            "bits/dim, may be negative, and depends on the unit."
        )
    if any(run.config.model.output == "logistic_mixture" for run in runs):
        notes.append(
            "Of the output “continuous” the figure is a density at values with noise added: an "
            "upper bound of what a model of levels would need."
        )
    return notes


def _data(run: RunFacts) -> tuple[Any, ...]:
    """Returns what two runs share whose figures can be compared."""
    images, data = run.image_format, run.config.data
    return images.image_shape, images.levels, data.name, data.binarize, data.test_split


def _fields(config: Config) -> list[Field]:
    defaults = dict(leaves(Config()))
    return [Field(name, _value(value), _value(defaults[name])) for name, value in leaves(config)]


def _differences(fields: Sequence[Sequence[Field]]) -> list[tuple[str, list[str]]]:
    """Returns the fields in which runs differ, with the value of each run."""
    rows = [
        (of_all[0].name, [field.value for field in of_all]) for of_all in zip(*fields, strict=True)
    ]
    return [(name, values) for name, values in rows if len({*values}) > 1]


def _lacks_time(run: RunFacts) -> bool:
    return bool(run.records) and not run.points("step", by="seconds")


def _pictures(run: RunFacts) -> list[Shown]:
    said = {
        "samples": "Drawn by the model",
        "completions": "Validation images, their upper halves, and what the model made of them",
    }
    return [
        Shown(
            name.capitalize(), _address(found.content, PNG), f"{said[name]}. Step {found.step:,}."
        )
        for name in said
        if (found := run.pictures.get(name))
    ]


def _pixel_map(run: RunFacts) -> Shown | None:
    found = run.pixel_map
    if found is None:
        return None
    return Shown(
        "Nats per pixel",
        _address(pictures.png(found.picture), PNG),
        f"{found.images} validation images, each beside the negative log-likelihood of its pixels.",
        f"{found.black:.2f}" if found.black else "0",
        f"{found.white:.2f}",
    )


def _facts(run: RunFacts) -> list[tuple[str, str]]:
    """Returns what else is known of a complete run."""
    result = run.result
    if result is None:
        return []
    before = f", after {result.resumed_from:,} steps made before" if result.resumed_from else ""
    return [
        ("finished", result.finished.replace("T", " ")),
        ("last command", duration(result.seconds) + before),
        ("hardware", ", ".join(f"{name}: {value}" for name, value in result.hardware.items())),
        ("versions", ", ".join(f"{name} {value}" for name, value in result.versions.items())),
    ]
