"""The progress line tells the truth."""

import math

import pytest

from pixel_rnn_jax.training.progress import Progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Returns a list whose last entry is the time."""
    times = [0.0]
    monkeypatch.setattr("pixel_rnn_jax.training.progress.time.perf_counter", lambda: times[-1])
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
