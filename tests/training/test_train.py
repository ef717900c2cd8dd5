"""What a run leaves behind and prints, with a stop and without, and what it never saves."""

import errno
import json
import os
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from types import SimpleNamespace
from unittest import mock

import jax
import ml_collections
import numpy as np
import pytest
import tensorboard_files
from etils.epath.gpath import PosixGPath
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
from pixel_rnn_jax.cli import train as train_verb
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runs.records import MetricsWriter
from pixel_rnn_jax.runs.workdir import read_config
from pixel_rnn_jax.runtime.compilation import programs_folder
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training import train as train_lib
from pixel_rnn_jax.training.evaluate import Evaluation
from pixel_rnn_jax.training.step import make_train_step
from pixel_rnn_jax.training.stop import stop_on_signal
from pixel_rnn_jax.training.train import train

VALUES = 4 * 4
"""Of an image, each with three levels."""


@pytest.fixture(scope="module")
def straight(config, tmp_path_factory):
    """A run that nothing disturbed, and its result."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, train(config, workdir)


def averaged(config, workdir, step):
    """Returns the model with the moving average of a checkpoint."""
    state = traverse_util.unflatten_dict(state_of(workdir, step), sep="/")
    return ImageModel(PixelRNN(config.model, (4, 4, 1), 3), state["ema"])


def test_records_and_checkpoints(straight):
    workdir, result = straight
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


def test_moving_average_of_the_best_checkpoint_is_evaluated(config, straight):
    workdir, result = straight
    (record,) = (r for r in records_of(workdir) if r["step"] == result.test.step)
    recorded = record["validation/nats"]
    model = averaged(config, workdir, result.test.step)
    log_probs = model.log_prob(*data.open_source(config, "validation").batch(range(11)))
    nats = -np.asarray(log_probs, float)
    assert recorded == pytest.approx(nats.mean(), rel=1e-6)
    assert evaluated(workdir, "validation").nats == pytest.approx(recorded, rel=1e-6)
    # In training as in the command, and from Python.
    assert evaluated(workdir) == result.test
    nats = -load(workdir).log_prob(*data.open_source(config, "test").batch(range(13)))
    assert nats.mean() == pytest.approx(result.test.nats, rel=1e-5)


def test_result_is_in_the_workdir(config, straight):
    workdir, result = straight
    written = json.loads((workdir / "result.json").read_text())
    evaluations = {"test": result.test, "independent_pixels": result.baseline}
    for name, found in evaluations.items():
        for number in ("nats", "standard_error", "bits_per_dim", "images"):
            assert written[name][number] == getattr(found, number)
    (record,) = (r for r in records_of(workdir) if r["step"] == result.test.step)
    assert written["validation"]["nats"] == record["validation/nats"]
    assert (written["step"], written["steps"], written["resumed_from"]) == (result.test.step, 6, 0)
    assert written["independent_pixels"]["training_images"] == 40
    assert written["seconds"] > 0
    assert written["versions"]["jax"] == jax.__version__
    events = [value for event in tensorboard_files.events(workdir) for value in event.summary.value]
    shown = {value.tag: value for value in events}
    assert shown["test/nats"].simple_value == np.float32(result.test.nats)
    (text,) = shown["result/text_summary"].tensor.string_val
    assert json.loads(text) == written
    (text,) = shown["config/text_summary"].tensor.string_val
    assert json.loads(text) == json.loads((workdir / "config.json").read_text())
    hardware = written["hardware"]
    assert (hardware["platform"], hardware["devices"], hardware["processes"]) == ("cpu", 8, 1)


def test_pictures(config, straight):
    """At each validation; those of the last one are what its average draws, and can be found."""
    workdir, result = straight
    drawn = outcome(workdir)["pictures"]
    names = "samples-6.png", "completions-6.png"
    assert drawn.keys() == {"samples-5.png", "completions-5.png", *names}
    assert result.pictures == tuple(workdir / "pictures" / name for name in names)
    model, key = averaged(config, workdir, 6), jax.random.key(config.seed)
    samples = model.sample(key, 16, np.repeat([0, 1], 8))
    assert drawn[names[0]] == pictures.png(pictures.grid(samples, 3))
    # There are only eleven validation images. Some known pixels come after unknown ones.
    images, condition = data.open_source(config, "validation").batch(range(11))
    known = np.zeros((11, 4, 4, 1), bool)
    known[:, :2] = True
    completed = model.complete(key, images, known, condition, particles=16).images
    assert drawn[names[1]] == pictures.png(pictures.completions(images, known, completed, 3))


@pytest.mark.parametrize(
    "name",
    [
        "result.json",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("config.json", "images.json", "data.json", "samples-5.png")
        ),
    ],
)
def test_a_full_disk_at_any_file(config, straight, tmp_path, monkeypatch, name):
    """`test_faults.py` fills disks; here they are full for one file alone."""
    write = PosixGPath.write_bytes

    def full(path, content):
        if path.name.removesuffix(".unfinished") == name:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(PosixGPath, "write_bytes", full)
    with pytest.raises(UserError, match=f"{tmp_path} cannot be written to: the disk is full"):
        train(config, tmp_path)
    monkeypatch.undo()
    assert not list(tmp_path.rglob("*.unfinished"))
    train(config, tmp_path)
    assert differences(tmp_path, straight[0]) == set()


@pytest.mark.parametrize("steps", [6, 4])  # Fewer than were made, too.
def test_finished_run_is_evaluated_again_and_printed(config, straight, monkeypatch, capsys, steps):
    workdir, result = straight
    before = outcome(workdir)
    monkeypatch.setattr(data, "train_batches", lambda *_, **__: iter([]))
    monkeypatch.setattr(train_verb, "join", lambda _: None)
    values = ml_collections.ConfigDict(asdict(changed(config, "train", steps=steps)))
    train_verb.train(SimpleNamespace(config=values, workdir=workdir, allow_change=""))
    coarse, fine = result.test.shares.values()
    worse = [train_verb.WORSE] if result.test.nats > result.baseline.nats else []
    assert capsys.readouterr().out.splitlines() == [
        f"workdir: {workdir}",
        f"compiled programs: {programs_folder()} (--compilation_cache)",
        "40 training, 11 validation, 13 test images of 4x4x1, 3 levels",
        f"all steps are done already (6 of {steps})",
        f"test, step {result.test.step}: {result.test}",
        f"nats of the scales by height: 2 {coarse:.3f}, 4 {fine:.3f}",
        f"independent pixels: {result.baseline}; histograms of 40 training images",
        *worse,
        f"{workdir}/result.json: these results, for programs",
        f"{workdir}/pictures/samples-6.png: samples",
        f"{workdir}/pictures/completions-6.png: completions",
    ]
    assert outcome(workdir) == before


def test_a_finished_run_on_other_test_images(config, straight, tmp_path):
    """The figures are new, and the hardware stays that of the time that the training took."""
    workdir = shutil.copytree(straight[0], tmp_path / "run")
    before = json.loads((workdir / "result.json").read_text())
    before["hardware"]["device"] = "another"
    (workdir / "result.json").write_text(json.dumps(before))
    found = train(changed(config, "data", test_split="test[:5]"), workdir).test
    written = json.loads((workdir / "result.json").read_text())
    assert (written["test"]["images"], written["test"]["nats"]) == (5, found.nats)
    for name in ("resumed_from", "seconds", "finished", "versions", "hardware"):
        assert written[name] == before[name]
    events = [value for event in tensorboard_files.events(workdir) for value in event.summary.value]
    shown = [value.simple_value for value in events if value.tag == "test/nats"]
    assert shown[-1] == np.float32(found.nats)


def test_signals_are_left_alone_outside_the_main_thread(config, straight):
    workdir, result = straight
    with ThreadPoolExecutor(1) as thread:
        assert thread.submit(train, config, workdir).result() == result


def test_second_signal_acts_as_it_did_before():
    handler = signal.getsignal(signal.SIGTERM)
    with stop_on_signal() as request:
        assert request.signal is None
        signal.raise_signal(signal.SIGTERM)
        assert request.signal == signal.SIGTERM
        assert signal.getsignal(signal.SIGTERM) is handler


def test_more_steps_may_be_asked_for_later(config, straight, tmp_path, monkeypatch):
    calls = mock.Mock()
    for owner, name in ((MetricsWriter, "write"), (MetricsWriter, "flush"), (Checkpoints, "save")):
        do = getattr(owner, name)
        calls.attach_mock(mock.create_autospec(do, side_effect=do), name)
        monkeypatch.setattr(owner, name, getattr(calls, name))
    for steps in (4, 6):
        train(changed(config, "train", steps=steps, log_every=2), tmp_path)
    # All records are in the workdir when a checkpoint is saved: of steps 2 and 4, 5 and 6. Then
    # comes the result.
    expected = [*["write", "flush", "save"] * 2, "flush"] * 2
    assert [name for name, *_ in calls.mock_calls] == expected
    assert differences(tmp_path, straight[0]) == {"records", "pictures", "steps"}
    records, (whole, *_) = records_of(tmp_path), records_of(straight[0])
    assert [record["step"] for record in records] == [2, 4, 5, 6]
    # A record has the means over the steps of its interval.
    for name in ("train/nats", "train/gradient_norm"):
        assert (records[0][name] + records[1][name]) / 2 == pytest.approx(whole[name], rel=1e-6)
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 6


@pytest.mark.parametrize(("step", "counted"), [(3, 3), (5, 1)])  # Within an interval.
def test_stopped_run_ends_as_the_other(config, straight, tmp_path, stop_at, capsys, step, counted):
    handler = signal.getsignal(signal.SIGTERM)
    stop_at(step, config, tmp_path)
    assert f"SIGTERM: stopped after step {step}, which is saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is handler
    state = state_of(tmp_path, step)
    kinds = {name.partition("/")[0] for name in state}
    assert kinds == {"params", "ema", "opt_state", "step", "interval"}
    assert state["interval"][2] == counted
    resumed = train(config, tmp_path)
    assert f"going on from step {step}\n" in capsys.readouterr().out
    workdir, result = straight
    assert (resumed.test, resumed.baseline) == (result.test, result.baseline)
    assert differences(tmp_path, workdir) == set()


@pytest.mark.parametrize(
    ("step", "spoilt", "message", "kept"),
    [
        (3, {"nats": np.nan}, "step 3: the loss is nan", 2),
        (4, {"gradient_norm": np.inf}, "step 4: the norm of the gradient is inf", 2),
        (5, {"gradient_norm": np.nan}, "step 5: the norm of the gradient is nan", 4),
    ],
)
def test_nothing_is_saved_after_a_step_that_is_not_finite(
    config, tmp_path, monkeypatch, step, spoilt, message, kept
):
    def make_spoilt(*args, **kwargs):
        step_fn = make_train_step(*args, **kwargs)

        def spoilt_fn(state, *rest):
            state, metrics = step_fn(state, *rest)
            return state, replace(metrics, **(spoilt if state.step == step else {}))

        return spoilt_fn

    monkeypatch.setattr("pixel_rnn_jax.training.turns.make_train_step", make_spoilt)
    with pytest.raises(UserError, match=f"training stopped: {message}.*step {kept} is kept"):
        train(config, tmp_path)
    assert max(saved_steps(tmp_path)) == kept
    assert all(record["step"] < step for record in records_of(tmp_path))


def test_validation_that_is_not_finite(config, tmp_path, monkeypatch):
    infinite = Evaluation(nats=np.inf, standard_error=np.nan, dims=VALUES, images=11)
    monkeypatch.setattr(evaluate, "measure", lambda *_: infinite)
    with pytest.raises(UserError, match="stopped: step 5: the validation loss is inf; .* step 4"):
        train(config, tmp_path)
    assert max(saved_steps(tmp_path)) == 4


def test_diverging_run(config, tmp_path):
    """A learning rate out of all bounds, without anything planted."""
    wild = changed(config, "optimizer", learning_rate=1e30)
    with pytest.raises(UserError, match="stopped: step 2: the (loss|norm) .*; nothing was saved"):
        train(wild, tmp_path)


def test_a_workdir_that_vanishes_stops_the_run(config, tmp_path, monkeypatch):
    config = changed(config, "train", checkpoint_every=4)
    train_batches, workdir = data.train_batches, tmp_path / "run"

    def batches(*args, **kwargs):
        for number, batch in enumerate(train_batches(*args, **kwargs), start=1):
            if number == 3:
                shutil.rmtree(workdir)
            yield batch

    monkeypatch.setattr(data, "train_batches", batches)
    with pytest.raises(UserError, match=f"^training stopped: {workdir} has been moved or deleted"):
        train(config, workdir)
    assert not workdir.exists()


def test_a_first_attempt_that_saved_nothing_may_begin_again(config, straight, tmp_path, capsys):
    wild = changed(config, "optimizer", learning_rate=1e30)
    other = changed(wild, "data", levels=4)
    for failing in (wild, other):
        with pytest.raises(UserError, match="nothing was saved"):
            train(failing, tmp_path)
    train(config, tmp_path)
    assert differences(tmp_path, straight[0]) == set()


def test_what_a_run_has_lost_is_said_when_it_goes_on(config, straight, tmp_path, capsys):
    workdir = tmp_path / "run"
    shutil.copytree(straight[0], workdir)
    newest = workdir / "checkpoints" / "6"
    digest = newest / "digest" / "metadata"
    content = digest.read_bytes()
    digest.write_bytes(content.replace(b"nats", b"nets"))
    with pytest.raises(UserError, match=f"^checkpoint {newest} cannot be restored"):
        train(config, workdir)
    assert saved_steps(workdir) == {5, 6}
    digest.write_bytes(content)
    (workdir / "metrics.jsonl").unlink()
    train(config, workdir)
    assert f"{workdir}/metrics.jsonl is not there: the records" in capsys.readouterr().out
    shutil.rmtree(workdir)
    shutil.copytree(straight[0], workdir)
    shutil.rmtree(workdir / "checkpoints")
    train(config, workdir)
    assert f"{workdir} has records up to step 6, but no checkpoint" in capsys.readouterr().out
    assert differences(workdir, straight[0]) == set()


def test_a_run_goes_on_where_its_data_have_moved(config, straight, tmp_path):
    workdir, moved = tmp_path / "run", tmp_path / "moved.npz"
    short = changed(config, "train", steps=4)
    train(short, workdir)
    shutil.copy(config.data.name, moved)
    train(changed(config, "data", name=str(moved)), workdir)
    assert differences(workdir, straight[0]) == {"records", "pictures", "steps"}
    arrays, other = dict(np.load(moved)), tmp_path / "other.npz"
    for split in ("train", "validation"):
        np.savez(other, **arrays | {split: np.flip(arrays[split], 1)})
        with pytest.raises(UserError, match="does not hold the images that .* was trained on"):
            train(changed(config, "data", name=str(other)), workdir)
    assert read_config(workdir).data.name == str(moved)
    np.savez(other, **arrays | {"validation": np.flip(arrays["validation"], 1)})
    flipped = changed(config, "data", name=str(other), flip=True)
    with pytest.raises(UserError, match="does not hold the images that .* was trained on"):
        train(flipped, workdir, allow_change=["data.flip"])
    np.savez(moved, **arrays | {"train": np.flip(arrays["train"], 1)})
    with pytest.raises(UserError, match="does not hold the images that .* was trained on"):
        train(changed(config, "data", name=str(moved)), workdir)


def test_data_that_were_changed_by_name_are_known_again(config, tmp_path):
    short, workdir, moved = changed(config, "train", steps=2), tmp_path / "run", tmp_path / "m.npz"
    train(short, workdir)
    part = changed(config, "data", train_split="train[:20]")
    with pytest.raises(UserError, match="--allow_change=data.train_split changes it all the same"):
        train(part, workdir)
    train(changed(part, "train", steps=4), workdir, allow_change=["data.train_split"])
    shutil.copy(config.data.name, moved)
    train(changed(part, "data", name=str(moved)), workdir)
    assert max(saved_steps(workdir)) == 6


def test_a_run_is_kept_from_others_until_its_result_is_written(config, tmp_path, monkeypatch):
    def other(*_, **__):
        with pytest.raises(UserError, match=f"{tmp_path} is in use"):
            train(config, tmp_path)
        raise UserError("looked")

    monkeypatch.setattr(train_lib, "write_result", other)
    with pytest.raises(UserError, match="looked"):
        train(changed(config, "train", steps=2), tmp_path)


def test_the_time_of_a_result_of_fewer_steps_is_not_kept(config, straight, tmp_path):
    shutil.copytree(straight[0], tmp_path / "run")
    path = tmp_path / "run" / "result.json"
    for steps, kept in ((6, True), (4, False)):
        written = json.loads(path.read_text()) | {"steps": steps, "seconds": 12345.6}
        path.write_text(json.dumps(written))
        train(config, tmp_path / "run")
        assert (json.loads(path.read_text())["seconds"] == 12345.6) == kept
