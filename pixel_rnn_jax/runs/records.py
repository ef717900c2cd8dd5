"""What a training run tells while it runs: records and pictures in files, a line of progress."""

import contextlib
import json
import math
import os
import tempfile
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Self

import numpy as np
from etils import epath
from tensorboardX import RecordWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.proto.summary_pb2 import Summary

from pixel_rnn_jax import pictures
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import storage


class CannotGoOn(Exception):
    """Training has to stop here; `train` adds which checkpoint is left to go on from."""


class MetricsWriter:
    """Writes records to `metrics.jsonl` (one JSON object a line) and to TensorBoard event files.

    A resumed run takes back what an interrupted one recorded after the checkpoint, and records it
    again. For that to leave nothing out, every record up to a step must be in the files before the
    checkpoint of that step: call `flush` in between.

    Nothing can be appended to an object of a bucket (gs://): there, the files grow in a local
    folder, and `flush` copies them.

    TensorBoard's files are written with tensorboardX's `RecordWriter`, at once. Its `SummaryWriter`
    has a thread that dies of a full disk unheard, and then blocks the run for ever.
    """

    def __init__(self, workdir: epath.PathLike, step: int):
        """Opens the files of a run of which `step` updates have been made.

        Args:
            workdir: The run's folder.
            step: Records after it are dropped.

        Raises:
            UserError: A file cannot be written, or `metrics.jsonl` holds something else.
        """
        self._workdir = epath.Path(workdir)
        self._closing = contextlib.ExitStack()
        local = self._workdir
        try:
            _drop_records_after(self._workdir / "metrics.jsonl", step)
            if "://" in str(workdir):
                local = epath.Path(self._closing.enter_context(tempfile.TemporaryDirectory()))
                if (self._workdir / "metrics.jsonl").exists():
                    (self._workdir / "metrics.jsonl").copy(local / "metrics.jsonl")
            # TensorBoard reads the files of a folder in the order of their names.
            names = "metrics.jsonl", f"tensorboard/events.out.tfevents.{time.time_ns()}"
            self._copied = {local / name: self._workdir / name for name in names}
            lines, events = self._copied
            events.parent.mkdir(parents=True, exist_ok=True)
            self._lines = lines.open("ab")
            self._events = RecordWriter(str(events))
        except storage.errors() as error:
            raise UserError(f"{workdir} cannot be written to: {storage.reason(error)}") from error
        self._add_event(Event(file_version="brain.Event:2"))
        if step:
            # Hides what earlier files hold at this step and after it.
            start = SessionLog(status=SessionLog.START)
            self._add_event(Event(step=step + 1, session_log=start))

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Records `values`, less those that are not finite, for `step`; a step has one record.

        Raises:
            CannotGoOn: A file cannot be written, because the disk is full, say.
        """
        values = {name: value for name, value in values.items() if math.isfinite(value)}
        with self._stopping_at_errors():
            self._lines.write(json.dumps({"step": step, **values}).encode() + b"\n")
            self._lines.flush()
            scalars = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
            self._add_event(Event(step=step, summary=Summary(value=scalars)))
            self._events.flush()

    def write_pictures(self, step: int, drawn: Mapping[str, np.ndarray]) -> None:
        """Writes pictures of uint8 to their `picture_path` and to TensorBoard.

        Raises:
            CannotGoOn: A file cannot be written, because the disk is full, say.
        """
        for name, picture in drawn.items():
            content = pictures.png(picture)
            path = picture_path(self._workdir, name, step)
            image = Summary.Image(
                height=picture.shape[0],
                width=picture.shape[1],
                colorspace=1 if picture.ndim == 2 else picture.shape[2],
                encoded_image_string=content,
            )
            with self._stopping_at_errors():
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(content)
                value = Summary.Value(tag=name, image=image)
                self._add_event(Event(step=step, summary=Summary(value=[value])))
                self._events.flush()

    def flush(self) -> None:
        """Returns when all records are in the workdir.

        Raises:
            CannotGoOn: They cannot be written there.
        """
        with self._stopping_at_errors():
            os.fsync(self._lines.fileno())
            for file, copy in self._copied.items():
                if file != copy:
                    copy.write_bytes(file.read_bytes())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # What could not be written has been reported; closing tries again, in vain.
        with contextlib.suppress(OSError):
            self._events.close()
        with contextlib.suppress(OSError):
            self._lines.close()
        self._closing.close()

    @contextlib.contextmanager
    def _stopping_at_errors(self) -> Iterator[None]:
        try:
            yield
        except storage.errors() as error:
            raise CannotGoOn(
                f"{self._workdir} cannot be written to: {storage.reason(error)}"
            ) from error

    def _add_event(self, event: Event) -> None:
        event.wall_time = time.time()
        self._events.write(event.SerializeToString())


def picture_path(workdir: epath.PathLike, name: str, step: int) -> epath.Path:
    """Returns where the picture `name` of a step is: `workdir`/pictures/NAME-STEP.png."""
    return epath.Path(workdir) / "pictures" / f"{name}-{step}.png"


def read_records(workdir: epath.PathLike) -> list[dict[str, float]]:
    """Returns the records of `workdir`/metrics.jsonl in order; a half-written last one is left out.

    Raises:
        UserError: A line is no record.
    """
    path = epath.Path(workdir) / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")
    records = []
    for number, line in enumerate(lines[:-1], start=1):
        try:
            record = json.loads(line)
            record["step"] + 0
        except (ValueError, TypeError, KeyError) as error:
            raise UserError(
                f"line {number} of {path} is not a record of metrics: move the file away, or put "
                "the line right"
            ) from error
        records.append(record)
    return records


def _drop_records_after(path: epath.Path, step: int) -> None:
    """Rewrites the file in one piece where it holds later records or half a record."""
    if not path.exists():
        return
    kept = [record for record in read_records(path.parent) if record["step"] <= step]
    text = "".join(json.dumps(record) + "\n" for record in kept).encode()
    if text != path.read_bytes():
        unfinished = path.parent / "metrics.jsonl.unfinished"
        unfinished.write_bytes(text)
        unfinished.replace(path)
