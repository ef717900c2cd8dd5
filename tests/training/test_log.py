"""Records have neither repetitions nor gaps after a resume."""

from contextlib import closing

import pytest

from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.training.log import TrainLog, overfitting, read_metrics


@pytest.fixture
def clock(monkeypatch):
    """A list whose last number is the time."""
    times = [0.0]
    monkeypatch.setattr("pixel_rnn_jax.training.log.time.monotonic", lambda: times[-1])
    return times


def write(workdir, start, steps):
    told = []

    def note(step, figures):
        told.append((step, *figures))
        figures.clear()  # What it gets is a copy.

    with closing(TrainLog(workdir, start, 20, on_record=note)) as log:
        for step in steps:
            name = "validation/nats" if step % 2 else "train/nats"
            log.write(step, {name: step / 4, "train/gradient_norm": 2.0})
            assert told[-1] == (step, "step", name, "train/gradient_norm", "seconds")
            assert read_metrics(workdir)[-1]["step"] == step  # It can be read at once.
        assert [record["step"] for record in log.records][-len(steps) :] == [*steps]
        log.flush()


def test_a_resumed_run_leaves_the_same_records(tmp_path, clock, capsys):
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    write(straight, 0, range(1, 10))
    write(resumed, 0, range(1, 7))
    write(resumed, 4, range(5, 8))
    write(resumed, 4, range(5, 10))
    assert (resumed / "metrics.jsonl").read_bytes() == (straight / "metrics.jsonl").read_bytes()
    TrainLog(resumed, 4, 20, (0.0, 4)).close()
    assert "lacks" not in capsys.readouterr().err
    TrainLog(resumed, 4, 20, (0.0, 6)).close()
    assert "lacks 2 records" in capsys.readouterr().err
    (resumed / "metrics.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        read_metrics(resumed)


def test_seconds_count_training_and_no_pause(tmp_path, clock):
    def write_until(start, *times, seconds=0.0):
        with closing(TrainLog(tmp_path, start, 20, (seconds, 0))) as log:
            for step, time in enumerate(times, start=start + 1):
                clock.append(time)
                log.write(step, {"train/nats": 1.0})
        return [record["seconds"] for record in read_metrics(tmp_path)]

    clock.append(100.0)
    assert write_until(0, 110.0, 120.0, 135.0) == [10, 20, 35]
    clock.append(1000.0)  # The pause; step 3 is lost, and step 2 was saved after 4 s more.
    assert write_until(2, 1010.5, seconds=24.0) == [10, 20, 34.5]


def test_a_file_gets_a_line_after_ten_seconds_of_steps(tmp_path, clock, capsys):
    with closing(TrainLog(tmp_path, 0, 100)) as log:
        for time in (50.0, 55.0, 61.0, 66.0):  # Compiling takes the first 50 s.
            clock.append(time)
            log.advance()
    assert capsys.readouterr().err == "step 3/100: 08:53 left\n"


@pytest.mark.parametrize("length", [1, 20, -1])
def test_half_a_record_at_the_end_is_dropped(tmp_path, length, clock):
    write(tmp_path, 0, range(1, 4))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][:length])
    write(tmp_path, 2, range(3, 4))
    assert path.read_bytes() == b"".join(lines)


@pytest.mark.parametrize(
    "training, validations, told",
    [
        (2421.0, [3300.0, 4200.0, 5870.0], True),
        (-50.0, [-40.0, -30.0, -20.0], True),  # Of a density.
        (80.0, [90.0, 85.0, 84.0], False),  # Validation still falls.
        (80.0, [84.0, 83.0, 83.5], False),  # Best late.
        (83.0, [82.0, 83.0, 84.0], False),  # Not far above.
        (60.0, [90.0], False),  # A few steps.
    ],
)
def test_overfitting_is_told(training, validations, told):
    records = [{"step": i, "validation/nats": v} for i, v in enumerate(validations, 1)]
    assert bool(overfitting([*records, {"step": 3, "train/nats": training}])) == told
