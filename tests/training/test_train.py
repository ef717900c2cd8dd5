"""What a run leaves behind and prints, with a stop and without, and what it never saves."""

import json
import signal
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import ml_collections
import numpy as np
import pytest
from flax import traverse_util
from jax import Array
from workdirs import changed, differences, outcome, records_of, saved_steps, state_of

from pixel_rnn_jax import data, load, pictures
from pixel_rnn_jax.cli import train as train_verb
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.models import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runs.records import MetricsWriter
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training.evaluate import Evaluation
from pixel_rnn_jax.training.step import Metrics, TrainState, TrainStep, make_train_step
from pixel_rnn_jax.training.train import TrainResult, train

Straight = tuple[Path, TrainResult]
VALUES = 4 * 4
"""Of an image, each with three levels."""


def averaged(config: Config, workdir: Path, step: int) -> ImageModel:
    """Returns the model with the moving average of a checkpoint."""
    state = traverse_util.unflatten_dict(state_of(workdir, step), sep="/")
    return ImageModel(PixelRNN(config.model, (4, 4, 1), 3), state["ema"])


def test_records_and_checkpoints(straight: Straight) -> None:
    workdir, result = straight
    records = records_of(workdir)
    assert [record["step"] for record in records] == [4, 5, 6]
    names = {"nats", "bits_per_dim", "gradient_norm", "learning_rate"}
    trained = {"step"} | {f"train/{name}" for name in names}
    names = {"nats", "standard_error", "bits_per_dim", "nats_of_height_2", "nats_of_height_4"}
    validated = {"step"} | {f"validation/{name}" for name in names}
    assert [set(record) for record in records] == [trained, validated, trained | validated]
    validations = {r["step"]: r["validation/nats"] for r in records if "validation/nats" in r}
    best = min(validations, key=lambda step: validations[step])
    assert saved_steps(workdir) == {5, 6}
    assert (result.test.step, result.test.images, result.baseline.images) == (best, 13, 13)
    # Before much is learnt.
    assert result.baseline.nats == pytest.approx(VALUES * np.log(3), rel=0.1)
    assert records[0]["train/nats"] == pytest.approx(VALUES * np.log(3), rel=0.2)
    bits = records[0]["train/nats"] / VALUES / np.log(2)
    assert records[0]["train/bits_per_dim"] == pytest.approx(bits)


def test_moving_average_of_the_best_checkpoint_is_evaluated(
    config: Config, straight: Straight
) -> None:
    workdir, result = straight
    step = result.test.step
    assert step is not None
    (recorded,) = (r["validation/nats"] for r in records_of(workdir) if r["step"] == step)
    model = averaged(config, workdir, step)
    nats = -model.log_prob(*data.open_source(config, "validation").batch(range(11)))
    assert recorded == pytest.approx(nats.mean(), rel=1e-6)
    assert evaluate.evaluate(workdir, "validation").nats == pytest.approx(recorded, rel=1e-6)
    # In training as in the command, and from Python.
    assert evaluate.evaluate(workdir) == result.test
    nats = -load(workdir).log_prob(*data.open_source(config, "test").batch(range(13)))
    assert nats.mean() == pytest.approx(result.test.nats, rel=1e-5)


def test_pictures(config: Config, straight: Straight) -> None:
    """At each validation; those of the last one are what its average draws, and can be found."""
    workdir, result = straight
    drawn = outcome(workdir).pictures
    names = "samples-6.png", "completions-6.png"
    assert drawn.keys() == {"samples-5.png", "completions-5.png", *names}
    assert result.pictures == tuple(workdir / "pictures" / name for name in names)
    model = averaged(config, workdir, 6)
    key = jax.random.key(config.seed)
    samples = model.sample(key, 16, np.repeat([0, 1], 8))
    assert isinstance(samples, np.ndarray)
    assert drawn[names[0]] == pictures.png(pictures.grid(samples, 3))
    # There are only eleven validation images. Some known pixels come after unknown ones.
    images, labels = data.open_source(config, "validation").batch(range(11))
    known = np.zeros((11, 4, 4, 1), bool)
    known[:, :2] = True
    completed = model.complete(key, images, known, labels, particles=16).images
    assert drawn[names[1]] == pictures.png(pictures.completions(images, known, completed, 3))


def test_finished_run_is_evaluated_again_and_printed(
    config: Config,
    straight: Straight,
    at_batch: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir, result = straight
    before = outcome(workdir)
    for steps in (6, 4):  # Fewer than were made, too.
        at_batch(steps + 1, lambda: pytest.fail("took a step"))
        assert train(changed(config, "train", steps=steps), workdir) == result
        assert f"all steps are done already (6 of {steps})" in capsys.readouterr().out

    text = (workdir / "config.json").read_text()
    flags: Any = SimpleNamespace(
        config=ml_collections.ConfigDict(json.loads(text)),
        workdir=str(workdir),
        coordinator=None,
        num_processes=None,
        process_id=None,
        distributed=False,
    )
    train_verb.train(flags)
    coarse, fine = result.test.shares.values()
    assert capsys.readouterr().out.splitlines() == [
        f"workdir: {workdir}",
        "all steps are done already (6 of 4)",
        f"test, step {result.test.step}: {result.test}",
        f"nats of the scales by height: 2 {coarse:.3f}, 4 {fine:.3f}",
        f"independent pixels: {result.baseline}; histograms of 40 training images",
        f"samples: {workdir}/pictures/samples-6.png",
        f"completions: {workdir}/pictures/completions-6.png",
    ]
    assert outcome(workdir) == before


def test_signals_are_left_alone_outside_the_main_thread(config: Config, straight: Straight) -> None:
    workdir, result = straight
    results: list[TrainResult] = []
    thread = threading.Thread(target=lambda: results.append(train(config, workdir)))
    thread.start()
    thread.join()
    assert results == [result]


def test_more_steps_may_be_asked_for_later(
    config: Config, straight: Straight, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def note(owner: type, name: str) -> None:
        do = getattr(owner, name)

        def call(*args: Any, **kwargs: Any) -> None:
            calls.append(name)
            do(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    note(MetricsWriter, "write")
    note(MetricsWriter, "flush")
    note(Checkpoints, "save")
    workdir, _ = straight
    for steps in (4, 6):
        train(changed(config, "train", steps=steps, log_every=2), tmp_path)
    # All records are on disk when a checkpoint is saved: of steps 2, 4, 5 and 6.
    assert calls == ["write", "flush", "save"] * 4
    found, expected = outcome(tmp_path), outcome(workdir)
    for state in (found.state, expected.state):
        del state["interval"]
    assert found.state == expected.state
    records, (whole, *_) = found.records, expected.records
    assert [record["step"] for record in records] == [2, 4, 5, 6]
    # A record has the means over the steps of its interval.
    for name in ("train/nats", "train/gradient_norm"):
        assert (records[0][name] + records[1][name]) / 2 == pytest.approx(whole[name], rel=1e-6)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 6


@pytest.mark.parametrize("step", [3, 5])  # Within an interval.
def test_stopped_run_ends_as_the_other(
    config: Config,
    straight: Straight,
    tmp_path: Path,
    stop_at: Callable[..., None],
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    stop_at(step, config, tmp_path)
    assert f"SIGTERM: stopped after step {step}, which is saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is handler
    state = state_of(tmp_path, step)
    kinds = {name.partition("/")[0] for name in state}
    assert kinds == {"params", "ema", "opt_state", "step", "interval"}
    assert state["interval"][2] == {3: 3, 5: 1}[step]
    resumed = train(config, tmp_path)
    assert f"going on from step {step}\n" in capsys.readouterr().out
    workdir, result = straight
    assert (resumed.test, resumed.baseline) == (result.test, result.baseline)
    assert differences(tmp_path, workdir) == []


@pytest.mark.parametrize(
    ("step", "name", "value", "message", "kept"),
    [
        (3, "nats", np.nan, "step 3: the loss is nan", 2),
        (4, "gradient_norm", np.inf, "step 4: the norm of the gradient is inf", 2),
        (5, "gradient_norm", np.nan, "step 5: the norm of the gradient is nan", 4),
    ],
)
def test_nothing_is_saved_after_a_step_that_is_not_finite(
    config: Config,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    step: int,
    name: str,
    value: float,
    message: str,
    kept: int,
) -> None:
    def make_spoiled(*args: Any, **kwargs: Any) -> TrainStep:
        step_fn = make_train_step(*args, **kwargs)

        def spoiled(
            state: TrainState, batch: Batch, stop: Array | None
        ) -> tuple[TrainState, Metrics]:
            number = int(state.step) + 1
            state, metrics = step_fn(state, batch, stop)
            spoilt: dict[str, Any] = {name: value} if number == step else {}
            return state, replace(metrics, **spoilt)

        return spoiled

    monkeypatch.setattr("pixel_rnn_jax.training.train.make_train_step", make_spoiled)
    with pytest.raises(UserError, match=f"training stopped at {message}.*step {kept} is kept"):
        train(config, tmp_path)
    assert max(saved_steps(tmp_path)) == kept
    assert all(record["step"] < step for record in records_of(tmp_path))


def test_validation_that_is_not_finite(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infinite = Evaluation(nats=np.inf, standard_error=np.nan, dims=VALUES, images=11)
    monkeypatch.setattr(evaluate, "measure", lambda *_: infinite)
    with pytest.raises(UserError, match="at step 5: the validation loss is not finite; .* step 4"):
        train(config, tmp_path)
    assert max(saved_steps(tmp_path)) == 4


def test_diverging_run(config: Config, tmp_path: Path) -> None:
    """A learning rate out of all bounds, without anything planted."""
    wild = changed(config, "optimizer", learning_rate=1e30)
    with pytest.raises(UserError, match=r"training stopped at step [2-6]: the (loss|norm)"):
        train(wild, tmp_path)
