"""Records have neither repetitions nor gaps after a resume."""

import itertools
import math

import numpy as np
import pytest
from PIL import Image
from tensorboard_files import events, shown
from workdirs import full_disk

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.records import CannotGoOn, MetricsWriter, picture_path, read_records


@pytest.mark.parametrize("lost", [False, True])
def test_the_time_is_not_known_of_a_run_whose_records_are_lost(tmp_path, lost):
    write(tmp_path, 0, [])  # It was stopped before its first record.
    if lost:
        (tmp_path / "metrics.jsonl").unlink()
    write(tmp_path, 3, [4])
    (record,) = read_records(tmp_path)
    assert ("seconds" in record) is not lost


@pytest.fixture
def clock(monkeypatch):
    """A list whose last number is the time."""
    times = [0.0]
    monkeypatch.setattr("pixel_rnn_jax.runs.records.time.monotonic", lambda: times[-1])
    return times


def write(workdir, start, steps):
    with MetricsWriter(workdir, start) as writer:
        for step in steps:
            writer.write(step, {"train/nats": step / 4, "train/gradient_norm": 2.0})
        writer.flush()


def test_records_are_readable_at_once_and_finite(tmp_path, clock):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write(5, {"a": math.inf, "b": -math.inf, "c": math.nan, "train/nats": 1.5})
        assert read_records(tmp_path) == [{"step": 5, "train/nats": 1.5, "seconds": 0.0}]
        assert shown(tmp_path) == [(5, "train/nats", 1.5)]
    line = '{"step": 5, "train/nats": 1.5, "seconds": 0.0}\n'
    assert (tmp_path / "metrics.jsonl").read_text() == line


def test_resumed_run_leaves_the_same_records(tmp_path, clock):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    write(straight, 0, range(1, 10))
    write(resumed, 0, range(1, 7))
    write(resumed, 4, range(5, 8))
    write(resumed, 4, range(5, 10))
    text = (straight / "metrics.jsonl").read_bytes()
    assert (resumed / "metrics.jsonl").read_bytes() == text
    assert shown(resumed) == shown(straight)
    assert len(shown(straight)) == 18


def test_seconds_count_training_and_no_pause(tmp_path, clock):
    def write_until(start, *times):
        with MetricsWriter(tmp_path, start) as writer:
            for step, time in enumerate(times, start=start + 1):
                clock.append(time)
                writer.write(step, {"train/nats": 1.0})

    def seconds():
        return [record.get("seconds") for record in read_records(tmp_path)]

    clock.append(100.0)
    write_until(0, 110.0, 120.0, 135.0)
    assert seconds() == [10, 20, 35]
    clock.append(1000.0)  # The pause; step 3 is lost.
    write_until(2, 1010.5)
    assert seconds() == [10, 20, 30.5]
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/nats": 1.0}\n')  # Of an earlier version.
    write_until(1, 2000.0)
    assert seconds() == [None, None]


@pytest.mark.parametrize("length", [1, 20, -1])
def test_half_a_record_at_the_end_is_dropped(tmp_path, length, clock):
    write(tmp_path, 0, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][:length])
    write(tmp_path, 2, range(3, 4))
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize("line", ["hello", "[1]", '{"nats": 1}', '{"step": "x"}', "\xff"])
def test_a_line_that_is_no_record_is_refused(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    content = f'{{"step": 1}}\n{line}\n{{"step": 3}}\n'.encode("latin-1")
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"line 2 of .*metrics\.jsonl is not a record"):
        MetricsWriter(tmp_path, 3)
    assert path.read_bytes() == content


@pytest.mark.parametrize("names", [[f"{'x' * 1000}{i}" for i in range(10)], ["nats"]])
def test_full_disk(tmp_path, names):
    """Long names fill metrics.jsonl first, a short one the TensorBoard file."""

    def write_for_ever(writer):
        for step in itertools.count(2):
            writer.write(step, dict.fromkeys(names, 1.0))

    with full_disk(1000), MetricsWriter(tmp_path, 0) as writer:
        writer.write(1, {"nats": 1.0})
        with pytest.raises(CannotGoOn, match="cannot be written to: File too large"):
            write_for_ever(writer)
    # Whatever was cut off, the next run can go on.
    write(tmp_path, 1, range(2, 4))
    assert [record["step"] for record in read_records(tmp_path)] == [1, 2, 3]


@pytest.mark.parametrize("channels", [(), (3,), (4,)])
def test_picture(tmp_path, channels):
    picture = np.random.default_rng(0).integers(256, size=(3, 5, *channels), dtype=np.uint8)
    with MetricsWriter(tmp_path, 0) as writer:
        writer.write_pictures(7, {"samples": picture})
    path = picture_path(tmp_path, "samples", 7)
    assert path == tmp_path / "pictures" / "samples-7.png"
    with Image.open(path) as image:
        np.testing.assert_array_equal(np.asarray(image), picture)
    (event,) = (event for event in events(tmp_path) if event.summary.value)
    (value,) = event.summary.value
    assert (event.step, value.tag) == (7, "samples")
    assert (value.image.height, value.image.width) == (3, 5)
    assert value.image.colorspace == (channels or (1,))[0]
    assert value.image.encoded_image_string == path.read_bytes()


def test_what_cannot_be_written(tmp_path):
    (tmp_path / "pictures").write_text("a file, not a folder")
    writer = MetricsWriter(tmp_path, 0)
    with writer, pytest.raises(CannotGoOn, match=f"{tmp_path} cannot be written to: "):
        writer.write_pictures(1, {"samples": np.zeros((2, 2), np.uint8)})
    other = tmp_path / "other"
    other.mkdir()
    (other / "tensorboard").write_text("a file, not a folder")
    with pytest.raises(UserError, match=f"{other} cannot be written to: File exists"):
        MetricsWriter(other, 0)


def test_texts_and_values_for_tensorboard_alone(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        writer.show(3, {"test/nats": 1.5}, {"config": "{\n}"})
    (event,) = (event for event in events(tmp_path) if event.summary.value)
    value, text = event.summary.value
    assert (event.step, value.tag, value.simple_value) == (3, "test/nats", 1.5)
    assert text.tensor.string_val == [b"    {\n    }"]
    assert text.metadata.plugin_data.plugin_name == "text"
    assert not read_records(tmp_path)
