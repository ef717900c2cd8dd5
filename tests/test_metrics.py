"""Records have neither repetitions nor gaps after a resume; the progress line tells the truth."""

import itertools
import json
import math
import resource
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tensorboardX.proto.event_pb2 import Event

from pixel_rnn_jax import metrics
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.metrics import CannotGoOn, MetricsWriter, Progress


def _events(workdir: Path) -> Iterator[Event]:
    """Yields the events of all files in the order in which TensorBoard reads them."""
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def _shown(workdir: Path) -> list[tuple[int, str, float]]:
    """Returns (step, tag, value) of what TensorBoard shows: a start hides what is not before it."""
    shown: list[tuple[int, str, float]] = []
    for event in _events(workdir):
        if event.HasField("session_log"):
            shown = [entry for entry in shown if entry[0] < event.step]
        shown += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return shown


def _write(workdir: Path, start: int, steps: range) -> None:
    with MetricsWriter(workdir, start) as writer:
        for step in steps:
            writer.write(step, {"train/nats": step / 4, "train/gradient_norm": 2.0})
        writer.flush()


def test_records(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(5, {"train/nats": 1.5, "train/images_per_second": math.nan})
        # Readable at once, while the run goes on.
        assert metrics.read_records(tmp_path) == [{"step": 5, "train/nats": 1.5}]
        assert _shown(tmp_path) == [(5, "train/nats", 1.5)]
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 5, "train/nats": 1.5}\n'


def test_resumed_run_leaves_the_same_records(tmp_path: Path) -> None:
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    for workdir in (straight, resumed):
        workdir.mkdir()
    _write(straight, 0, range(1, 10))
    _write(resumed, 0, range(1, 7))
    _write(resumed, 4, range(5, 8))
    _write(resumed, 4, range(5, 10))
    text = (straight / "metrics.jsonl").read_bytes()
    assert (resumed / "metrics.jsonl").read_bytes() == text
    assert _shown(resumed) == _shown(straight)
    assert len(_shown(straight)) == 18


@pytest.mark.parametrize("length", [1, 20, -1])
def test_half_a_record_at_the_end_is_dropped(tmp_path: Path, length: int) -> None:
    _write(tmp_path, 0, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][:length])
    _write(tmp_path, 2, range(3, 4))
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("line", ["hello", "[1]", '{"nats": 1}', '{"step": "x"}', "\xff"])
def test_a_line_that_is_no_record_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    content = f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'.encode("latin-1")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl is not a record"):
        MetricsWriter(tmp_path, 3)
    assert path.read_bytes() == content


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "tensorboard").write_text("a file, not a folder")
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written to: File exists"):
        MetricsWriter(tmp_path, 0)


def _write_for_ever(writer: MetricsWriter, values: dict[str, float]) -> None:
    for step in itertools.count(2):
        writer.write(step, values)


@pytest.mark.parametrize("full", ["metrics.jsonl", "tensorboard"])
def test_full_disk(tmp_path: Path, full: str) -> None:
    """A limit on the size of files stands for the disk: the same writes fail."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"nats": 1.0})
        values = {"nats": 1.0}
        if full == "metrics.jsonl":
            values = {f"{'x' * 1000}{i}": 1.0 for i in range(10)}
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
        try:
            with pytest.raises(CannotGoOn, match="cannot be written to: File too large"):
                _write_for_ever(writer, values)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    # Whatever was cut off, the next run can go on.
    _write(tmp_path, 1, range(2, 4))
    assert [record["step"] for record in metrics.read_records(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_picture(tmp_path: Path, channels: tuple[int, ...]) -> None:
    picture = np.random.default_rng(0).integers(256, size=(3, 5, *channels), dtype=np.uint8)
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write_picture(7, "samples", picture)
    path = metrics.picture_path(tmp_path, "samples", 7)
    assert path == tmp_path / "pictures" / "samples-7.png"
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    (event,) = (event for event in _events(tmp_path) if event.summary.value)
    (value,) = event.summary.value
    assert (event.step, value.tag) == (7, "samples")
    assert (value.image.height, value.image.width) == (3, 5)
    assert value.image.colorspace == (channels or (1,))[0]
    assert value.image.encoded_image_string == path.read_bytes()


def test_picture_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "pictures").write_text("a file, not a folder")
    with (
        MetricsWriter(tmp_path, 0) as writer,
        pytest.raises(CannotGoOn, match=f"{tmp_path} cannot be written to: "),
    ):
        writer.write_picture(1, "samples", np.zeros((2, 2), np.uint8))


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Returns a list whose last entry is the time."""
    times = [0.0]
    monkeypatch.setattr("pixel_rnn_jax.metrics.time.perf_counter", lambda: times[-1])
    return times


def test_progress_line(clock: list[float], capsys: pytest.CaptureFixture[str]) -> None:
    progress = Progress(step=0, steps=100, batch_size=16)
    clock.append(60.0)  # Compilation.
    progress.advance()
    for step in range(2, 12):
        if step == 5:
            with progress.paused():
                clock.append(clock[-1] + 1000.0)
        clock.append(clock[-1] + 0.5)
        progress.advance()
    assert progress.report(11, 81.234, 0.14949) == pytest.approx(16 / 0.5)
    line = "step 11/100: 81.23 nats, 0.149 bits/dim, 32 images/s, 00:44 left\n"
    assert capsys.readouterr().out == line
    clock.append(clock[-1] + 0.25)
    progress.advance()
    assert progress.report(12, 81.0, 0.149) == pytest.approx(16 / 0.25)
    progress.close()


def test_progress_before_the_speed_is_known(
    clock: list[float], capsys: pytest.CaptureFixture[str]
) -> None:
    progress = Progress(step=0, steps=2, batch_size=16)
    progress.advance()
    assert math.isnan(progress.report(1, 81.0, 0.149))
    assert capsys.readouterr().out == "step 1/2: 81.00 nats, 0.149 bits/dim\n"
    progress.close()


def test_json_is_strict(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"a": math.inf, "b": -math.inf, "c": math.nan, "d": 0.5})

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    text = (tmp_path / "metrics.jsonl").read_text()
    assert json.loads(text, parse_constant=refuse) == {"step": 1, "d": 0.5}
