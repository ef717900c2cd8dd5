"""Curves of several runs, drawn by Matplotlib as SVG, for a light page and for a dark one."""

import io
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from pixel_rnn_jax.report.extra import library
from pixel_rnn_jax.report.facts import RunFacts

COLOURS = "#2f7ed8", "#e8703a", "#1f9e77", "#c44e9d", "#b8860b", "#7a6fd0", "#17a2b8", "#8c6d5a"
"""They are told apart on white and on a dark page."""
DASHES = "solid", "dashed", "dotted"
"""Of the first runs, of those that have the same colours again, and so on."""
UNITS = {"nats": "nats per image", "bits_per_dim": "bits/dim"}
INK = {"light": "#3c4652", "dark": "#c3cad3"}
MOST_POINTS = 1000
"""Longer curves are thinned out: a picture has no more columns than that."""
EARLY = 0.1
"""The share of the values of a curve, the largest, that may run out of the picture."""


KINDS = "train", "validation"
STYLE = {"font.size": 10, "font.family": "DejaVu Sans", "svg.hashsalt": "report"}
INKED = (
    "text.color",
    "axes.labelcolor",
    "axes.edgecolor",
    "xtick.color",
    "ytick.color",
    "grid.color",
)
METADATA = "Creator", "Date", "Format", "Type"


class Style(NamedTuple):
    """How the curves of a run look: a colour, and the dash of their lines."""

    colour: str
    dash: str


class Panel(NamedTuple):
    """A picture of curves: what it shows, and SVG files for a light and a dark page."""

    title: str
    light: bytes
    dark: bytes


def style(number: int) -> Style:
    """Returns the style of the run with this number, from 0 on."""
    return Style(COLOURS[number % len(COLOURS)], DASHES[number // len(COLOURS) % len(DASHES)])


def draw(runs: Sequence[RunFacts]) -> list[Panel]:
    """Draws training and validation in nats and bits/dim, against steps and against time.

    Panels that would be empty are left out: those of bits/dim if all values are real, those against
    time if no run has recorded it.

    Raises:
        UserError: Matplotlib is not installed.
    """
    panels = []
    for unit, label in UNITS.items():
        for by, against in (("step", "steps"), ("seconds", "training time")):
            drawn = [_draw(runs, unit, by, ink) for ink in INK.values()]
            if all(drawn):
                panels.append(Panel(f"{label}, against {against}", *drawn))
    return panels


class _Curves(NamedTuple):
    """The curves of a run: points `[N, 2]` in the order of training, perhaps none."""

    style: Style
    training: np.ndarray
    validation: np.ndarray
    best: np.ndarray  # The lowest validation, [1, 2] or [0, 2].


def _curves(run: RunFacts, look: Style, unit: str, by: str) -> _Curves:
    training, validation = (run.points(f"{kind}/{unit}", by) for kind in KINDS)
    best = [min(validation, key=lambda point: point[1])] if validation else []
    return _Curves(look, _thinned(training), _thinned(validation), _thinned(best))


def _draw(runs: Sequence[RunFacts], unit: str, by: str, ink: str) -> bytes:
    """Returns one panel as an SVG file; nothing if it would be empty."""
    every = [_curves(run, style(number), unit, by) for number, run in enumerate(runs)]
    drawn = [points for own in every for points in own[1:] if len(points)]
    if not drawn:
        return b""
    last = max(points[-1, 0] for points in drawn)
    name, size = ("step", 1.0) if by == "step" else _unit_of_time(last)
    # Not pyplot, which keeps figures and may want a screen. The same runs give the same file.
    with library("matplotlib").rc_context({**STYLE, **dict.fromkeys(INKED, ink)}):
        figure = library("matplotlib.figure").Figure(figsize=(5.6, 3.5), layout="constrained")
        axes = figure.subplots()
        for look, training, validation, best in every:
            _plot(axes, training, size, look, linewidth=1, alpha=0.45)
            _plot(axes, validation, size, look, linewidth=1.9)
            _plot(axes, best, size, look, marker="o", markersize=6)
        axes.set(xlabel=name, ylabel=UNITS[unit], ylim=_limits([points[:, 1] for points in drawn]))
        axes.set_xlim(0, 1.03 * last / size or 1)
        axes.xaxis.set_major_locator(library("matplotlib.ticker").MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda x, position: f"{x:,g}")
        axes.grid(alpha=0.2, linewidth=0.7)
        axes.spines[["top", "right"]].set_visible(False)
        file = io.BytesIO()
        figure.savefig(file, format="svg", transparent=True, metadata=dict.fromkeys(METADATA))
    return file.getvalue()


def _plot(axes: Any, points: np.ndarray, divisor: float, look: Style, **options: Any) -> None:
    x, y = points[:, 0] / divisor, points[:, 1]
    axes.plot(x, y, color=look.colour, linestyle=look.dash, **options)


def _thinned(points: Sequence[tuple[float, float]]) -> np.ndarray:
    """Returns every n-th point and the last one, `[N, 2]`."""
    array = np.array(points, float).reshape(-1, 2)
    every = math.ceil(len(array) / MOST_POINTS) or 1
    return array[::-1][::every][::-1]


def _limits(values: Sequence[np.ndarray]) -> tuple[float, float]:
    """Returns the range of the values, without the first of training, which are much larger."""
    low = min(of_curve.min() for of_curve in values)
    high = max(np.quantile(of_curve, 1 - EARLY, method="higher") for of_curve in values)
    gap = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return float(low - gap), float(high + gap)


def _unit_of_time(seconds: float) -> tuple[str, float]:
    """Returns the label of an axis up to so many seconds, and the seconds of its unit."""
    for name, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"training time, {name}", size
    return "training time, seconds", 1.0
