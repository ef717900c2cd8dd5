"""What a run leaves behind, with a stop and without, what it never saves, what it refuses."""

import json
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax import traverse_util
from workdirs import (
    changed,
    differences,
    evaluated,
    outcome,
    records_of,
    saved_steps,
    state_of,
)

from pixel_rnn_jax import data, load, pictures
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.workdir import lock, read_config
from pixel_rnn_jax.training.step import make_train_step
from pixel_rnn_jax.training.stop import stop_on_signal
from pixel_rnn_jax.training.train import train

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


# ---- What a run leaves -----------------------------------------------------------------------


def test_records_and_checkpoints(trained_run):
    workdir, result = trained_run
    records = records_of(workdir)
    assert [record["step"] for record in records] == [4, 5, 6]
    names = "nats", "bits_per_dim", "gradient_norm", "learning_rate"
    trained = {"step", *(f"train/{name}" for name in names)}
    names = "nats", "standard_error", "bits_per_dim", "nats_of_height_2", "nats_of_height_4"
    validated = {"step", *(f"validation/{name}" for name in names)}
    assert [set(record) for record in records] == [trained, validated, trained | validated]
    best = min(records[1:], key=lambda record: record["validation/nats"])["step"]
    assert saved_steps(workdir) == {5, 6}
    assert (result.test.step, result.test.images, result.baseline.images) == (best, 13, 13)
    # Before much is learnt.
    assert result.baseline.nats == pytest.approx(VALUES * np.log(3), rel=0.1)
    assert records[0]["train/nats"] == pytest.approx(VALUES * np.log(3), rel=0.2)
    bits = records[0]["train/nats"] / VALUES / np.log(2)
    assert records[0]["train/bits_per_dim"] == pytest.approx(bits)


def test_moving_average_of_the_best_checkpoint_is_evaluated(config, trained_run):
    workdir, result = trained_run
    (record,) = (r for r in records_of(workdir) if r["step"] == result.test.step)
    recorded = record["validation/nats"]
    model = averaged(config, workdir, result.test.step)
    log_probs = model.log_prob(*data.open_split(config, "validation").batch(range(11)))
    assert recorded == pytest.approx(-np.asarray(log_probs, float).mean(), rel=1e-6)
    assert evaluated(workdir, "validation").nats == pytest.approx(recorded, rel=1e-6)
    # In training as in the command, and from Python.
    assert evaluated(workdir) == result.test
    nats = -load(workdir).log_prob(*data.open_split(config, "test").batch(range(13)))
    assert nats.mean() == pytest.approx(result.test.nats, rel=1e-5)


def test_result_is_in_the_workdir(trained_run):
    workdir, result = trained_run
    written = json.loads((workdir / "result.json").read_text())
    evaluations = {"test": result.test, "independent_pixels": result.baseline}
    for name, evaluation in evaluations.items():
        for number in ("nats", "standard_error", "bits_per_dim", "images"):
            assert written[name][number] == getattr(evaluation, number)
    assert (written["step"], written["steps"], written["resumed_from"]) == (result.test.step, 6, 0)
    assert written["independent_pixels"]["training_images"] == 40
    assert written["versions"]["jax"] == jax.__version__
    hardware = written["hardware"]
    assert (hardware["platform"], hardware["devices"], hardware["processes"]) == ("cpu", 8, 1)


def test_pictures(config, trained_run):
    """At each validation; those of the last one are what its average draws."""
    workdir, result = trained_run
    drawn = outcome(workdir)["pictures"]
    names = "samples-6.png", "completions-6.png", "curves.png"
    assert drawn.keys() == {"samples-5.png", "completions-5.png", *names}
    assert result.pictures == tuple(workdir / "pictures" / name for name in names)
    model, key = averaged(config, workdir, 6), jax.random.key(config.seed)
    samples = model.sample(key, 16, np.repeat([0, 1], 8))
    assert drawn[names[0]] == pictures.png(pictures.grid(samples, 3))
    # There are only eleven validation images. Some known pixels come after unknown ones.
    images, condition = data.open_split(config, "validation").batch(range(11))
    known = np.zeros((11, 4, 4, 1), bool)
    known[:, :2] = True
    completed = model.complete(key, images, known, condition, particles=16).images
    assert drawn[names[1]] == pictures.png(pictures.completions(images, known, completed, 3))


def test_a_finished_run_is_evaluated_again(config, trained_run, copy, monkeypatch):
    monkeypatch.setattr(data, "train_batches", lambda *_, **__: iter([]))
    before, written = outcome(copy), json.loads((copy / "result.json").read_text())
    for steps in (6, 4):  # Fewer than were made, too.
        again = train(changed(config, "train", steps=steps), copy)
        assert again.test == trained_run[1].test
    assert outcome(copy) == before
    assert json.loads((copy / "result.json").read_text()) == written
    on_five = train(changed(config, "data", test_split="test[:5]"), copy).test
    rewritten = json.loads((copy / "result.json").read_text())
    assert rewritten["test"]["nats"] == on_five.nats != written["test"]["nats"]
    assert rewritten["seconds"] == written["seconds"]  # The training took no longer.


# ---- Stopping and resuming ---------------------------------------------------------------------


@pytest.mark.parametrize(("step", "counted"), [(3, 3), (5, 1)])  # Within an interval.
def test_a_stopped_run_ends_as_the_other(config, trained_run, tmp_path, stop_at, step, counted):
    handler = signal.getsignal(signal.SIGTERM)
    stop_at(step, config, tmp_path)
    assert signal.getsignal(signal.SIGTERM) is handler
    state = state_of(tmp_path, step)
    entries = {name.partition("/")[0] for name in state}
    assert entries == {"params", "ema", "opt_state", "step", "interval"}
    assert state["interval"][2] == counted
    resumed = train(config, tmp_path)
    workdir, result = trained_run
    assert (resumed.test, resumed.baseline) == (result.test, result.baseline)
    assert differences(tmp_path, workdir) == set()


@pytest.mark.slow
def test_more_steps_may_be_asked_for_later(config, trained_run, tmp_path):
    for steps in (4, 6):
        train(changed(config, "train", steps=steps, log_every=2), tmp_path)
    assert differences(tmp_path, trained_run[0]) == {"records", "pictures", "steps"}
    records, (whole, *_) = records_of(tmp_path), records_of(trained_run[0])
    assert [record["step"] for record in records] == [2, 4, 5, 6]
    # A record has the means over the steps of its interval.
    for name in ("train/nats", "train/gradient_norm"):
        assert (records[0][name] + records[1][name]) / 2 == pytest.approx(whole[name], rel=1e-6)
    assert read_config(tmp_path).train.steps == 6


def test_signals_are_left_alone_outside_the_main_thread(config, trained_run, copy):
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(train, config, copy).result().test == trained_run[1].test


def test_a_second_signal_acts_as_it_did_before():
    handler = signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as request:
        assert request.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert request.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.slow
@pytest.mark.parametrize(
    ("group", "fields"),
    [
        ("optimizer", dict(learning_rate=0.001, schedule="cosine")),
        ("train", dict(steps=8, batch_size=4)),
        ("data", dict(flip=True, train_split="train[:20]")),
        ("model", dict(remat=True, images_per_lane=2)),
    ],
)
def test_what_may_change_is_logged(config, copy, capsys, group, fields):
    longer = changed(config, "train", steps=8)
    train(changed(longer, group, **fields), copy)
    said = capsys.readouterr().err
    assert all(f"{group}.{name}" in said for name in fields if fields != {"steps": 8})
    assert max(saved_steps(copy)) == 8
    assert getattr(read_config(copy), group) == getattr(changed(longer, group, **fields), group)


@pytest.mark.parametrize(
    ("group", "fields", "named"),
    [
        ("model", dict(layers=2), "model.layers"),
        ("model", dict(skip=False), "model.skip"),
        ("data", dict(levels=4), "levels"),
    ],
)
def test_what_may_not_change_is_named(config, copy, group, fields, named):
    before = outcome(copy)
    with pytest.raises(UserError, match=named):
        train(changed(config, group, **fields), copy)
    with pytest.raises(UserError, match="seed"):
        train(replace(config, seed=4), copy)
    assert outcome(copy) == before


def test_a_second_training_is_refused(config, copy):
    with lock(copy), pytest.raises(UserError, match="--workdir"):
        train(config, copy)


# ---- Failures ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("step", "spoilt", "kept"),
    [
        (3, {"nats": np.nan}, 2),
        (4, {"gradient_norm": np.inf}, 2),
        (5, {"gradient_norm": np.nan}, 4),
    ],
)
def test_nothing_is_saved_after_a_step_that_is_not_finite(
    config, tmp_path, monkeypatch, step, spoilt, kept
):
    def make_spoilt(*args, **kwargs):
        step_fn = make_train_step(*args, **kwargs)

        def spoilt_fn(state, *rest):
            state, metrics = step_fn(state, *rest)
            return state, replace(metrics, **(spoilt if state.step == step else {}))

        return spoilt_fn

    monkeypatch.setattr("pixel_rnn_jax.training.train.make_train_step", make_spoilt)
    with pytest.raises(UserError, match=f"step {step}.*optimizer.learning_rate"):
        train(config, tmp_path)
    assert max(saved_steps(tmp_path)) == kept
    assert all(record["step"] < step for record in records_of(tmp_path))


def test_a_first_attempt_that_saved_nothing_may_begin_again(config, trained_run, tmp_path):
    """A learning rate out of all bounds, without anything planted."""
    with pytest.raises(UserError, match="optimizer.learning_rate"):
        train(changed(config, "optimizer", learning_rate=1e30), tmp_path)
    train(config, tmp_path)
    assert differences(tmp_path, trained_run[0]) == set()


# ---- Nothing foreign is evaluated ----------------------------------------------------------------


def test_a_config_that_was_edited_is_refused(copy):
    path = copy / "config.json"
    path.write_text(path.read_text().replace('"residual": true', '"residual": false'))
    with pytest.raises(UserError, match="model.residual"):
        evaluated(copy)


def test_a_checkpoint_of_another_run_is_refused(config, copy, tmp_path):
    """Of equal shapes: its arrays alone, and whole."""
    other = tmp_path / "other"
    train(replace(config, seed=4), other)
    step = load_step(copy)
    for name, named in (("state", "SHA-256"), ("", "several runs")):
        ours = copy / "checkpoints" / str(step) / name
        shutil.rmtree(ours)
        shutil.copytree(other / "checkpoints" / str(load_step(other)) / name, ours)
        with pytest.raises(UserError, match=named):
            evaluated(copy)
    shutil.rmtree(copy / "checkpoints")
    shutil.copytree(other / "checkpoints", copy / "checkpoints")
    with pytest.raises(UserError, match="seed"):
        evaluated(copy)


def load_step(workdir):
    return json.loads((workdir / "result.json").read_text())["step"]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_data_that_were_replaced_are_refused(config, copy, tmp_path, split):
    moved = tmp_path / "moved.npz"
    shutil.copy(config.data.name, moved)
    here = changed(config, "data", name=str(moved))
    train(changed(here, "train", steps=7), copy)  # The data have moved: they are the same.
    expected = evaluated(copy)
    arrays = dict(np.load(moved))
    np.savez(moved, **arrays | {split: np.flip(arrays[split], 1)})
    with pytest.raises(UserError, match="data.name"):
        evaluated(copy)
    with pytest.raises(UserError, match="data.name"):
        train(changed(here, "train", steps=7), copy)
    np.savez(moved, **arrays)
    assert evaluated(copy) == expected


def test_splits_that_overlap_are_refused(config, tmp_path):
    with pytest.raises(UserError, match=r"data.validation_split.*data.test_split"):
        train(changed(config, "data", validation_split="test[:5]"), tmp_path / "new")
    with pytest.raises(UserError, match=r"data.train_split.*data.validation_split"):
        train(changed(config, "data", validation_split="train[30:]"), tmp_path / "new")
    assert not (tmp_path / "new").exists()
