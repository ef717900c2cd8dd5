"""The progress line tells the truth."""

import math

import pytest

from pixel_rnn_jax.training.progress import Progress


def test_progress_line(monkeypatch, capsys):
    times = [0.0]
    monkeypatch.setattr("pixel_rnn_jax.training.progress.time.perf_counter", lambda: times[-1])
    progress = Progress(step=0, steps=100, batch_size=16)
    assert capsys.readouterr().out == "compiling the training step\n"
    times.append(60.0)  # Compilation.
    progress.advance()
    assert math.isnan(progress.report(1, 81.0, 0.149))  # The speed is not known yet.
    assert capsys.readouterr().out == "step 1/100: 81.00 nats, 0.149 bits/dim\n"
    for step in range(2, 12):
        if step == 5:
            with progress.paused():
                times.append(times[-1] + 1000.0)
        times.append(times[-1] + 0.5)
        progress.advance()
    assert progress.report(11, 81.234, 0.14949) == pytest.approx(16 / 0.5)
    line = "step 11/100: 81.23 nats, 0.149 bits/dim, 32 images/s, 00:44 left\n"
    assert capsys.readouterr().out == line
    times.append(times[-1] + 0.25)
    progress.advance()
    assert progress.report(12, 81.0, 0.149) == pytest.approx(16 / 0.25)
    progress.close()
