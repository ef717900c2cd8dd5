"""What a run leaves behind, with a stop and without, what it never saves, what it refuses."""

import contextlib
import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from flax import traverse_util
from helpers.workdirs import (
    changed,
    differences,
    evaluated,
    outcome,
    records_of,
    saved_steps,
    state_of,
)

from pixel_rnn_jax import data, load
from pixel_rnn_jax.data import pictures
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.source import open_split
from pixel_rnn_jax.runs.workdir import Checkpoints, lock, read_config
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.training import stop
from pixel_rnn_jax.training.stop import stop_on_signal
from pixel_rnn_jax.training.train import Training, train

VALUES = 4 * 4
"""Of an image, each with three levels."""


def averaged(config, workdir, step):
    """Returns the model with the moving average of a checkpoint."""
    state = traverse_util.unflatten_dict(state_of(workdir, step), sep="/")
    return ImageModel(PixelRNN(config.model, (4, 4, 1), 3), state["ema"])


@pytest.fixture
def copy(trained_run, tmp_path):
    """A copy of the finished run."""
    return shutil.copytree(trained_run[0], tmp_path / "copy")


def test_records_and_result(trained_run):
    workdir, result = trained_run
    records = records_of(workdir)
    assert [record["step"] for record in records] == [4, 5, 6]
    names = "nats", "bits_per_dim", "gradient_norm", "learning_rate"
    trained = {"step", *(f"train/{name}" for name in names)}
    names = "nats", "standard_error", "bits_per_dim", "nats_of_height_2", "nats_of_height_4"
    validated = {"step", *(f"validation/{name}" for name in names)}
    assert [set(record) for record in records] == [trained, validated, trained | validated]
    assert saved_steps(workdir) == {5, 6}
    # Before much is learnt.
    assert result.baseline.nats == pytest.approx(VALUES * np.log(3), rel=0.1)
    assert records[0]["train/nats"] == pytest.approx(VALUES * np.log(3), rel=0.2)
    bits = records[0]["train/nats"] / VALUES / np.log(2)
    assert records[0]["train/bits_per_dim"] == pytest.approx(bits)

    best = min(records[1:], key=lambda record: record["validation/nats"])
    written = json.loads((workdir / "result.json").read_text())
    assert (written["step"], written["steps"]) == (best["step"], 6)
    assert written["validation"]["nats"] == best["validation/nats"]
    assert written["test"] == result.test.numbers() and written["test"]["images"] == 13
    assert written["independent_pixels"] == result.baseline.numbers()
    assert written["versions"]["jax"] == jax.__version__


def test_moving_average_of_the_best_checkpoint_is_evaluated(config, trained_run):
    workdir, result = trained_run
    (record,) = (r for r in records_of(workdir) if r["step"] == result.run.step)
    model = averaged(config, workdir, result.run.step)
    log_probs = model.log_prob(*open_split(config, "validation").batch(range(11)))
    expected = -np.asarray(log_probs, float).mean()
    assert record["validation/nats"] == pytest.approx(expected, rel=1e-6)
    assert evaluated(workdir, "validation")["nats"] == pytest.approx(expected, rel=1e-6)
    # In training as in the command, and from Python.
    assert evaluated(workdir) == result.test.numbers()
    nats = -load(workdir).log_prob(*open_split(config, "test").batch(range(13)))
    assert nats.mean() == pytest.approx(result.test.nats, rel=1e-5)


def test_pictures(config, trained_run):
    """At each validation; those of the last one are what its average draws."""
    workdir, _ = trained_run
    drawn = outcome(workdir)["pictures"]
    numbered = {f"{name}-{step}.png" for name in ("samples", "completions") for step in (5, 6)}
    assert drawn.keys() == {*numbered, "curves.png"}
    model, key = averaged(config, workdir, 6), jax.random.key(config.seed)
    samples = model.sample(key, 16, np.repeat([0, 1], 8))
    assert drawn["samples-6.png"] == pictures.png(pictures.grid(samples, 3))
    # There are only eleven validation images. Some known pixels come after unknown ones.
    images, condition = open_split(config, "validation").batch(range(11))
    known = np.zeros((11, 4, 4, 1), bool)
    known[:, :2] = True
    completed = model.complete(key, images, known, condition, particles=16).images
    picture = pictures.completions(images, known, completed, 3)
    assert drawn["completions-6.png"] == pictures.png(picture)


def test_a_finished_run_is_evaluated_again(config, trained_run, copy, monkeypatch):
    monkeypatch.setattr(data, "train_batches", lambda *_, **__: iter([]))
    before, written = outcome(copy), (copy / "result.json").read_text()
    train(config, copy)
    assert (outcome(copy), (copy / "result.json").read_text()) == (before, written)
    train(changed(config, "train", steps=4), copy)  # Fewer than were made.
    on_five = train(changed(config, "data", test_split="test[:5]"), copy).test
    rewritten = json.loads((copy / "result.json").read_text())
    assert outcome(copy) == before and rewritten["test"] == on_five.numbers()


def test_a_stopped_run_ends_as_the_other(config, trained_run, tmp_path, monkeypatch):
    """It stops within an interval of records, at a step that is not saved otherwise."""
    handler, train_batches = signal.getsignal(signal.SIGTERM), data.train_batches

    def batches(*args, **kwargs):
        for number, batch in enumerate(train_batches(*args, **kwargs), start=1):
            if number == 3:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(data, "train_batches", batches)
        with pytest.raises(SystemExit, match="143"):
            train(config, tmp_path)
    assert max(saved_steps(tmp_path)) == 3
    assert signal.getsignal(signal.SIGTERM) is handler
    state = state_of(tmp_path, 3)
    entries = {name.partition("/")[0] for name in state}
    assert entries == {"params", "ema", "opt_state", "step", "interval"}
    assert state["interval"][2] == 3
    resumed = train(config, tmp_path)
    workdir, result = trained_run
    assert resumed.test.numbers() == result.test.numbers()
    assert differences(tmp_path, workdir) == set()


@pytest.mark.slow
def test_more_steps_may_be_asked_for_later(config, trained_run, tmp_path):
    for steps in (4, 6):
        train(changed(config, "train", steps=steps, log_every=2), tmp_path)
    # Which steps are kept depends on which validated best.
    assert differences(tmp_path, trained_run[0]) - {"steps"} == {"records", "pictures"}
    records, (whole, *_) = records_of(tmp_path), records_of(trained_run[0])
    assert [record["step"] for record in records] == [2, 4, 5, 6]
    # A record has the means over the steps of its interval.
    for name in ("train/nats", "train/gradient_norm"):
        assert (records[0][name] + records[1][name]) / 2 == pytest.approx(whole[name], rel=1e-6)
    assert read_config(tmp_path).train.steps == 6


def test_signals_are_left_alone_outside_the_main_thread(config, trained_run, copy):
    with ThreadPoolExecutor(1) as thread:
        result = thread.submit(train, config, copy).result()
    assert result.run.step == trained_run[1].run.step


def test_a_signal_after_a_second_acts_as_it_did_before(capfd, monkeypatch):
    times = iter([5.0, 5.9, 6.1])
    monkeypatch.setattr(stop, "time", SimpleNamespace(monotonic=lambda: next(times)))
    received = []
    handler = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    with stop_on_signal() as request:
        assert request.signal is None
        for expected in ([], [], [signal.SIGTERM]):  # GNU timeout sends the second at once.
            signal.raise_signal(signal.SIGTERM)
            assert request.signal == signal.SIGTERM and received == expected
        assert "finishing the step" in capfd.readouterr().err
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
def test_what_may_change_is_logged(config, copy, capsys):
    fields = {
        "optimizer": dict(learning_rate=0.001, schedule="cosine"),
        "train": dict(steps=8, batch_size=4),
        "data": dict(flip=True, train_split="train[:20]"),
        "model": dict(remat=True, images_per_lane=2),
    }
    other = config
    for group, values in fields.items():
        other = changed(other, group, **values)
    train(other, copy)
    said = capsys.readouterr().err
    assert all(f"{group}.{name} " in said for group, values in fields.items() for name in values)
    assert max(saved_steps(copy)) == 8 and read_config(copy) == other


def test_what_may_not_change_is_named(config, copy):
    before = outcome(copy)
    for wrong, named in (
        (changed(config, "model", layers=2), "model.layers"),
        (changed(config, "model", skip=False), "model.skip"),
        (changed(config, "data", levels=4), "levels"),
        (replace(config, seed=4), "seed"),
    ):
        with pytest.raises(UserError, match=named):
            train(wrong, copy)
    assert outcome(copy) == before


def test_a_second_training_is_refused(config, copy):
    with lock(copy), pytest.raises(UserError, match="--workdir"):
        train(config, copy)


def test_nothing_is_saved_after_a_step_that_is_not_finite(
    config, trained_run, tmp_path, monkeypatch
):
    """And the run goes on from what was saved before."""
    right = Training._compiled

    for step, spoilt in ((3, {"loss": np.nan}), (4, {"gradient_norm": np.inf})):

        def compiled(self, *args, step=step, spoilt=spoilt):
            step_fn = right(self, *args)

            def spoilt_fn(state, *rest):
                state, metrics = step_fn(state, *rest)
                return state, replace(metrics, **(spoilt if state.step == step else {}))

            return spoilt_fn

        with monkeypatch.context() as patch:
            patch.setattr(Training, "_compiled", compiled)
            with pytest.raises(UserError, match=f"step {step}.*optimizer.learning_rate"):
                train(config, tmp_path)
        assert max(saved_steps(tmp_path)) == 2 and not records_of(tmp_path)
    train(config, tmp_path)
    assert differences(tmp_path, trained_run[0]) == set()


def test_a_config_that_was_edited_is_refused(copy):
    path = copy / "config.json"
    path.write_text(path.read_text().replace('"residual": true', '"residual": false'))
    with pytest.raises(UserError, match="model.residual"):
        evaluated(copy)


def test_a_checkpoint_of_another_run_is_refused(config, copy, tmp_path):
    identity = Checkpoints(copy, read_only=True).identity(6)
    identity = replace(identity, config=replace(config, seed=4), origin="other")
    state = traverse_util.unflatten_dict(state_of(copy, 6), sep="/")
    with contextlib.closing(Checkpoints(tmp_path / "other")) as others:
        for step in (5, 6):
            others.save(step, state, identity, 1.0)
    theirs = tmp_path / "other" / "checkpoints"
    shutil.rmtree(copy / "checkpoints" / "6")
    shutil.copytree(theirs / "6", copy / "checkpoints" / "6")
    with pytest.raises(UserError, match="several runs"):
        evaluated(copy)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(theirs, copy / "checkpoints")
    with pytest.raises(UserError, match="seed"):
        evaluated(copy)


def test_data_that_were_replaced_are_refused(config, copy, tmp_path):
    moved = tmp_path / "moved.npz"
    shutil.copy(config.data.name, moved)
    here = changed(config, "data", name=str(moved))
    longer = changed(here, "train", steps=7)
    train(longer, copy, pictures=False)  # The data have moved: they are the same.
    arrays = dict(np.load(moved))
    for split in ("train", "validation", "test"):
        np.savez(moved, **arrays | {split: np.flip(arrays[split], 1)})
        with pytest.raises(UserError, match="data.name"):
            evaluated(copy, split=split)
        with pytest.raises(UserError, match="data.name"):
            train(longer, copy)
    np.savez(moved, **arrays | {"test_labels": np.array(["no", "yes"])[arrays["test_labels"]]})
    with pytest.raises(UserError, match="data.name"):  # Its classes have names.
        evaluated(copy)
    np.savez(moved, **arrays)
    with pytest.raises(UserError, match="data.name"):  # Others chose the best checkpoint.
        train(changed(longer, "data", validation_split="validation[:3]"), copy)
