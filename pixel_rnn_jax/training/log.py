"""What a training run leaves to look at: records, curves, pictures, and lines on the terminal."""

import contextlib
import io
import json
import operator
import os
import tempfile
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import tqdm
from etils import epath
from matplotlib.figure import Figure
from tensorboardX import SummaryWriter

from pixel_rnn_jax import data
from pixel_rnn_jax.data import Split, pictures
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.model.generation.complete import is_exact
from pixel_rnn_jax.runs.workdir import Progress
from pixel_rnn_jax.system import processes, terminal
from pixel_rnn_jax.system.files import atomic_write, error_context

Row = dict[str, float]
OnRecord = Callable[[int, Mapping[str, float]], None]
"""Gets the step and the figures of each record, in the first process."""

_FORMS = {
    "train/loss": "loss {:.4g}",  # A custom loss; the default loss is in nats.
    "train/nats": "{:.2f} nats",
    "train/bits_per_dim": "{:.3f} bits/dim",
}
PREVIEWS = 16
"""Images in a picture, and particles of a completion: few, so that they cost little."""


class TrainLog(contextlib.ExitStack):
    """The log of one run, which the first process writes to `metrics.jsonl` and TensorBoard.

    A resumed run drops the records after its checkpoint. "seconds" is the time of training, with
    validations and compilation. A terminal shows a bar, a file gets a line for each record.
    """

    def __init__(
        self,
        workdir: epath.PathLike,
        step: int,
        steps: int,
        progress: tuple[float, int] = (0.0, 0),
        on_record: OnRecord | None = None,
    ):
        super().__init__()
        seconds, count = progress
        self._on_record = on_record
        self._workdir, self._step, self._steps = epath.Path(workdir), step, steps
        self._begin = time.monotonic() - seconds
        self._first: tuple[int, float] | None = None  # The first step that was made, and when.
        self._is_told = False
        self.records: list[Row] = []
        self._writer = None
        hidden = None if processes.is_first() else True  # None: where there is no terminal.
        self._bar = tqdm.tqdm(
            desc="training", initial=step, total=steps, unit="steps", disable=hidden
        )
        self.callback(self._bar.close)
        if not processes.is_first():
            return
        path = self._workdir / "metrics.jsonl"
        if path.exists():
            self.records = [r for r in read_metrics(workdir) if r["step"] <= step]
        if (lost := count - len(self.records)) > 0:
            terminal.log(f"{path} lacks {terminal.plural(lost, 'record')} before step {step}")
        with atomic_write(path) as file:
            file.write(_as_lines(self.records))
        # The objects of a bucket cannot be appended to: `flush` copies a local file there.
        self._folder = self._workdir
        if "://" in str(workdir):
            self._folder = epath.Path(self.enter_context(tempfile.TemporaryDirectory()))
            (self._folder / "metrics.jsonl").write_bytes(_as_lines(self.records))
        self._file = self.enter_context((self._folder / "metrics.jsonl").open("ab"))
        # Its thread dies when the disk is full; a short queue would then block the run.
        self._writer = SummaryWriter(
            str(self._folder / "tensorboard"), purge_step=step + 1, max_queue=10**9, flush_secs=10
        )
        self.callback(self._writer.close)

    @property
    def progress(self) -> Progress:
        """The progress of the run until now."""
        return Progress(round(time.monotonic() - self._begin, 3), len(self.records))

    def advance(self) -> None:
        """Counts a step that was made; a file gets a line ten seconds after the first one."""
        self._bar.update()
        self._step += 1
        self._first = self._first or (self._step, time.monotonic())
        if not self._is_told and time.monotonic() > self._first[1] + 10:
            self._tell(self._step, "")

    def _tell(self, step: int, text: str) -> None:
        """Prints a line where there is no bar; the time left is computed without compiling."""
        if self._bar.disable:
            self._is_told = True
            first, begin = self._first or (self._step, time.monotonic())
            rate = (time.monotonic() - begin) / max(self._step - first, 1)
            left = tqdm.tqdm.format_interval((self._steps - step) * rate)
            terminal.log(f"step {step}/{self._steps}: {text}{left} left")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the record of a step."""
        if not self._writer:
            return
        record = {"step": step, **values, "seconds": self.progress.seconds}
        self.records.append(record)
        self._file.write(_as_lines([record]))
        self._file.flush()
        if self._on_record:
            self._on_record(step, dict(record))
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        text = ", ".join(form.format(values[n]) for n, form in _FORMS.items() if n in values)
        if text:
            self._bar.set_postfix_str(text)
            self._tell(step, f"{text}, ")

    def draw(self, step: int, model: ImageModel, seed: int, validation: Split) -> None:
        """Draws samples, completions and the curves so far."""
        if not self._writer:
            return
        contents = {"curves": curves(self.records)}
        for name, picture in previews(model, seed, validation).items():
            contents[f"{name}-{step}"] = pictures.png(picture)
            axes = "HWC" if picture.ndim == 3 else "HW"
            self._writer.add_image(name, picture, step, dataformats=axes)
        for name, content in contents.items():
            with atomic_write(self._workdir / "pictures" / f"{name}.png") as file:
                file.write(content)

    def flush(self) -> None:
        """Returns when all records are in the workdir, on disk; call it before a checkpoint."""
        if not self._writer:
            return
        os.fsync(self._file.fileno())
        self._writer.flush()
        if self._folder != self._workdir:
            for file in filter(epath.Path.is_file, self._folder.rglob("*")):
                copy = self._workdir / file.relative_to(self._folder)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(file.read_bytes())


def _as_lines(records: list[Row]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()


def read_metrics(workdir: epath.PathLike) -> list[Row]:
    """Returns the records of `workdir`/metrics.jsonl in order, without a half-written last one."""
    path = epath.Path(workdir) / "metrics.jsonl"
    with error_context(path):
        records = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        return [record | {"step": operator.index(record["step"])} for record in records]


def overfitting(records: list[Row]) -> str:
    """Returns what helps if validation ended above its best and far above training; else ""."""
    validations = [(r["validation/nats"], r["step"]) for r in records if "validation/nats" in r]
    losses = [record["train/nats"] for record in records if "train/nats" in record]
    if not validations or not losses:
        return ""
    (_, best), (nats, end) = min(validations), validations[-1]
    if 2 * best >= end or nats - losses[-1] < 0.1 * abs(losses[-1]):
        return ""
    return (
        f"overfitting: validation was best at step {best} and ended at {nats:.2f} nats, training "
        f"at {losses[-1]:.2f}: model.dropout, fewer model.features or more images help"
    )


def previews(model: ImageModel, seed: int, validation: Split) -> dict[str, np.ndarray]:
    """Draws samples and completions, with the same random numbers at every call."""
    key, levels = jax.random.key(seed), model.levels
    images, condition = validation.batch(data.evenly_spaced(len(validation), PREVIEWS))
    sampled = condition
    if classes := model.config.condition.classes:
        sampled = data.balanced_classes(PREVIEWS, classes)
    samples = model.sample(key, PREVIEWS if sampled is None else len(sampled), sampled)
    known = np.broadcast_to(pictures.known_mask("top_half", model.image_shape), images.shape)
    particles = 1 if is_exact(model.pixel_rnn.scales, known) else PREVIEWS
    completion = model.complete(key, images, known, condition, particles=particles)
    return {
        "samples": pictures.grid(*pictures.as_levels(samples, levels)),
        "completions": pictures.completions(images, known, completion.images, levels),
    }


def curves(records: list[Row]) -> bytes:
    """Draws the loss in training and validation against the steps, as a PNG file."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes: Any = figure.add_subplot()
    has_bits = any("validation/bits_per_dim" in record for record in records)
    unit, label = ("bits_per_dim", "bits/dim") if has_bits else ("nats", "nats per image")
    losses: list[float] = []
    for name, style in (("train", "-"), ("validation", "o-")):
        points = [(r["step"], r[f"{name}/{unit}"]) for r in records if f"{name}/{unit}" in r]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=name, linewidth=1.2, markersize=4)
        losses += [loss for _, loss in points]
    low, high = min(losses), float(np.quantile(losses, 0.9))  # The first losses are far above.
    margin = 0.05 * (high - low)
    axes.set(xlabel="step", ylabel=label, ylim=(low - margin, high + margin + 1e-6))
    axes.legend()
    axes.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
