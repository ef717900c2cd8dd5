"""What a training run records in its workdir: `metrics.jsonl`, TensorBoard files and pictures."""

import contextlib
import json
import math
import os
import re
import tempfile
import textwrap
import time
from collections.abc import Mapping
from typing import Self

import numpy as np
from etils import epath
from tensorboardX import RecordWriter, summary
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from pixel_rnn_jax import pictures
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import storage


class CannotGoOn(Exception):
    """Training has to stop; `train` adds to the message which checkpoint is left."""


class MetricsWriter:
    """Writes records to `metrics.jsonl` (one JSON object per line) and to TensorBoard files.

    A resumed run drops the records after its checkpoint and writes them again; call `flush` before
    a checkpoint is saved, so that none is missing then. The objects of a bucket (gs://) cannot be
    appended to, so there `flush` copies local files.

    "seconds" in a record is how long the run has trained, validations and compilation included. It
    goes on from the last record that a resumed run keeps: neither the pause counts, nor what was
    lost, nor the steps between that record and the stop. Where that record does not say, as in runs
    of earlier versions, later ones do not either.

    All methods raise `CannotGoOn` if a file cannot be written, because the disk is full, say.
    """

    def __init__(self, workdir: epath.PathLike, step: int):
        """Opens the files and drops the records after `step`, the number of updates made so far.

        Raises:
            UserError: A file cannot be written, or `metrics.jsonl` holds something else.
        """
        self._workdir = folder = epath.Path(workdir)
        self._local = contextlib.ExitStack()
        with storage.writing(workdir):
            lost = step > 0 and not (self._workdir / "metrics.jsonl").exists()
            kept = _drop_records_after(self._workdir, step)
            if "://" in str(workdir):
                folder = epath.Path(self._local.enter_context(tempfile.TemporaryDirectory()))
                (folder / "metrics.jsonl").write_bytes(_as_lines(kept))
            # TensorBoard reads the files of a folder in the order of their names.
            names = "metrics.jsonl", f"tensorboard/events.out.tfevents.{time.time_ns()}"
            self._copies = {folder / name: self._workdir / name for name in names}
            lines, events = self._copies
            events.parent.mkdir(parents=True, exist_ok=True)
            self._lines = lines.open("ab")
            # The thread of a `SummaryWriter` dies when the disk is full, and then blocks the run.
            self._events = RecordWriter(str(events))
        self._begin = time.monotonic()
        # How long a run has trained whose records are lost is not known any more.
        self._seconds_before = kept[-1].get("seconds") if kept else None if lost else 0.0
        self._add_event(Event(file_version="brain.Event:2"))
        # Makes TensorBoard hide what earlier files hold after this step.
        start = SessionLog(status=SessionLog.START)
        self._add_event(Event(step=step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Writes the record of a step; leaves out values that are not finite."""
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        record = {"step": step, **values}
        if self._seconds_before is not None:
            seconds = self._seconds_before + time.monotonic() - self._begin
            record["seconds"] = round(seconds, 3)
        with storage.writing(self._workdir, CannotGoOn):
            self._lines.write(_as_lines([record]))
            self._lines.flush()
        self.show(step, values, {})

    def show(self, step: int, values: Mapping[str, float], texts: Mapping[str, str]) -> None:
        """Writes finite values and texts of a step to TensorBoard alone."""
        summaries = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
        for tag, text in texts.items():
            # TensorBoard takes it as Markdown, in which what is indented is shown as it is.
            summaries += summary.text(tag, textwrap.indent(text, "    ")).value
        with storage.writing(self._workdir, CannotGoOn):
            self._add_summary(step, summaries)

    def write_pictures(self, step: int, drawn: Mapping[str, np.ndarray]) -> None:
        """Writes pictures of uint8 to their `picture_path` and to TensorBoard."""
        for name, picture in drawn.items():
            content = pictures.png(picture)
            path = picture_path(self._workdir, name, step)
            height, width, *channels = picture.shape
            image = Summary.Image(height=height, width=width, encoded_image_string=content)
            image.colorspace = channels[0] if channels else 1
            with storage.writing(self._workdir, CannotGoOn):
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                self._add_summary(step, [Summary.Value(tag=name, image=image)])

    def flush(self) -> None:
        """Returns when all records are in the workdir, on disk."""
        with storage.writing(self._workdir, CannotGoOn):
            os.fsync(self._lines.fileno())
            for file, copy in self._copies.items():
                if file != copy:
                    copy.write_bytes(file.read_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        # Closing writes again what could not be written, which has been reported.
        for file in (self._events, self._lines):
            with contextlib.suppress(OSError):
                file.close()
        self._local.close()

    def _add_summary(self, step: int, values: list[Summary.Value]) -> None:
        self._add_event(Event(step=step, summary=Summary(value=values)))
        self._events.flush()

    def _add_event(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())


def picture_path(workdir: epath.PathLike, name: str, step: int) -> epath.Path:
    """Returns the path of the picture `name` of a step."""
    return epath.Path(workdir) / "pictures" / f"{name}-{step}.png"


def picture_paths(workdir: epath.PathLike) -> list[tuple[epath.Path, str, int]]:
    """Returns the pictures that there are, each with its name and step."""
    folder = epath.Path(workdir) / "pictures"
    paths = list(folder.iterdir()) if folder.is_dir() else []
    found = [re.fullmatch(r"(samples|completions)-(\d+)\.png", path.name) for path in paths]
    return [
        (path, match[1], int(match[2])) for path, match in zip(paths, found, strict=True) if match
    ]


def read_records(workdir: epath.PathLike) -> list[dict[str, float]]:
    """Returns the records of `workdir`/metrics.jsonl in order, without a half-written last one.

    Raises:
        UserError: A line is not a record.
    """
    path = epath.Path(workdir) / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            record["step"] + 0
        except storage.DAMAGED_JSON as error:
            raise UserError(
                f"line {number} of {path} is not a record of metrics: move the file away, or put "
                "the line right"
            ) from error
        records.append(record)
    return records


def _drop_records_after(workdir: epath.Path, step: int) -> list[dict[str, float]]:
    """Drops later records and half a record from `metrics.jsonl`; returns those that it keeps."""
    path = workdir / "metrics.jsonl"
    if not path.exists():
        return []
    kept = [record for record in read_records(workdir) if record["step"] <= step]
    content = _as_lines(kept)
    if content != path.read_bytes():
        storage.write_atomically(path, content)
    return kept


def _as_lines(records: list[dict[str, float]]) -> bytes:
    return "".join(json.dumps(record) + "\n" for record in records).encode()
