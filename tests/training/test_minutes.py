"""A run by the clock gets as many steps as fit, once."""

import json

import pytest
from workdirs import changed, records_of

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.training import minutes
from pixel_rnn_jax.training.train import train

pytestmark = pytest.mark.usefixtures("no_pictures")


def test_minutes_become_steps_of_the_whole_schedule(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(minutes, "TIMED_S", 0.1)
    config = changed(config, "optimizer", schedule="cosine", warmup_steps=1)
    config = changed(config, "train", minutes=1 / 60, log_every=1, eval_every=1000)
    config = changed(config, "train", checkpoint_every=1000)
    train(config, tmp_path)
    steps = json.loads((tmp_path / "config.json").read_text())["train"]["steps"]
    line = next(line for line in capsys.readouterr().out.splitlines() if "train.minutes" in line)
    assert line.startswith(f"train.minutes: {steps:,} steps of ")
    milliseconds = float(line.split()[-3])
    least, most = (1000 / (milliseconds + off) for off in (0.06, -0.06))  # It is rounded.
    assert least - 1 <= steps <= most + 1
    rates = [record["train/learning_rate"] for record in records_of(tmp_path)]
    assert len(rates) == steps > 2
    assert rates[0] == pytest.approx(config.optimizer.learning_rate)
    assert rates[-1] < rates[0] * 4 / steps**2 + 1e-9

    monkeypatch.setattr(minutes, "timed", lambda config, *_: pytest.fail("timed again"))
    assert train(config, tmp_path).test.images
    assert f"all steps are done already ({steps} of {steps})" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"train\.minutes from .* to 3\.0"):
        train(changed(config, "train", minutes=3.0), tmp_path)
    with pytest.raises(UserError, match=r"give --config\.train\.minutes=0 as well"):
        train(changed(config, "train", steps=9), tmp_path, allow_change=["train.steps"])
    # Without minutes, the steps count.
    more = changed(config, "train", minutes=0.0, steps=steps + 1)
    train(more, tmp_path, allow_change=["train.steps"])
    assert len(records_of(tmp_path)) == steps + 1


def test_a_warmup_that_is_longer_than_the_minutes(config, tmp_path, monkeypatch):
    monkeypatch.setattr(minutes, "TIMED_S", 0.1)
    config = changed(config, "train", minutes=1 / 300)  # Of more than config.train.steps.
    config = changed(config, "optimizer", schedule="cosine", warmup_steps=10**6)
    with pytest.raises(
        UserError, match=r"warmup_steps must be below the steps that fit in train\.m"
    ):
        train(config, tmp_path)
