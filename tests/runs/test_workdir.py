"""What a workdir holds: its files, the rule of resuming, and the trained model."""

import contextlib
import dataclasses
import itertools
import json
import shutil
import time

import jax
import numpy as np
import pytest
from etils import epath
from example_configs import OTHER, other, replace

import pixel_rnn_jax as prnn
from pixel_rnn_jax.config import Config, ModelConfig, OptimizerConfig, leaves, to_json
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs import checkpoints as checkpoints_lib
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.resume import check_resumable, read_digests, record_changes
from pixel_rnn_jax.runs.workdir import (
    agree,
    begin_run,
    open_run,
    read_config,
    read_image_format,
    write_config,
    write_image_format,
)
from pixel_rnn_jax.runtime import devices, processes

IMAGES = ImageFormat((3, 4, 1), 2)


def test_config_round_trip(tmp_path, monkeypatch):
    workdir = tmp_path / "new" / "run"
    write_config(Config(), workdir)
    write_config(OTHER, workdir)
    assert read_config(workdir) == OTHER
    assert [path.name for path in workdir.iterdir()] == ["config.json"]

    def write_half(path, content):
        path.write_text("half")
        raise OSError("no more")

    monkeypatch.setattr(type(epath.Path(workdir)), "write_bytes", write_half)
    with pytest.raises(OSError, match="no more"):
        write_config(Config(), workdir)
    assert read_config(workdir) == OTHER


@pytest.mark.parametrize(
    "damaged, reason",
    [
        (to_json(OTHER)[:-5].encode(), "it is not JSON"),
        (b"", "it is not JSON"),
        (b"[" * 10**5, "it is not JSON"),
        (b"\xff\x00", "codec can't decode"),
        (b'{"model": {}}', "it does not hold the fields model, data, optimizer, train"),
        (to_json(OTHER).replace("features", "width").encode(), "no field model.width"),
        (to_json(OTHER).replace("0.25", "NaN").encode(), "optimizer.learning_rate must be"),
    ],
)
def test_damaged_or_foreign_config_is_refused(tmp_path, damaged, reason):
    path = tmp_path / "config.json"
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=f"^{path} is not a config .* can read: .*{reason}"):
        read_config(tmp_path)


def test_image_format_round_trip(tmp_path):
    images = ImageFormat((28, 30, 3), 17)
    write_image_format(images, tmp_path)
    write_image_format(images, tmp_path)
    with pytest.raises(UserError, match=r"\(28, 30, 3\) and 17 levels.* \(28, 30, 3\) and 2 lev"):
        write_image_format(dataclasses.replace(images, levels=2), tmp_path)
    assert read_image_format(tmp_path) == images


def test_damaged_image_format_is_refused_by_name(tmp_path):
    """Each flipped bit too: an offset with another digit would be another likelihood."""
    path, expected = (
        tmp_path / "images.json",
        ImageFormat((4, 4, 1), 0, (49.9,), (4.5,), ("a", "b")),
    )
    write_image_format(expected, tmp_path)
    content = path.read_bytes()

    def read(damaged):
        path.write_bytes(damaged)
        try:
            return read_image_format(tmp_path)
        except UserError as error:
            return str(error)

    flipped = (
        content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :]
        for at, bit in itertools.product(range(len(content)), range(8))
    )
    for damaged in (b"", b"{}", b"[]", b"[" * 10**5, content[:-9], *flipped):
        found = read(damaged)
        assert found == expected or found.startswith(f"{path} is damaged ("), damaged
        assert "\n" not in str(found)


@pytest.mark.parametrize(("before", "kept"), [(b"", 0), (b'{"step": 1}\n', 1), (b'{"st', 1)])
def test_a_change_is_a_line_of_its_own(tmp_path, before, kept):
    (tmp_path / "history.jsonl").write_bytes(before)
    record_changes(epath.Path(tmp_path), 3, {"seed": (0, 1)})
    lines = (tmp_path / "history.jsonl").read_bytes().splitlines()
    assert len(lines) == kept + 1 and json.loads(lines[-1])["step"] == 3
    (tmp_path / "other" / "history.jsonl").mkdir(parents=True)
    with pytest.raises(UserError, match="other cannot be written to: Is a directory"):
        record_changes(epath.Path(tmp_path / "other"), 3, {"seed": (0, 1)})


@pytest.mark.parametrize("damaged", [b"", b"[]", b'{"train": "a"}', b"\xff", b"[" * 10**5])
def test_damaged_digests_are_not_taken_for_none(tmp_path, damaged):
    """Other data would pass for those of the run."""
    assert read_digests(tmp_path) == {}
    (tmp_path / "data.json").write_bytes(damaged)
    with pytest.raises(UserError, match=r"data.json is damaged, .* delete it to go without"):
        read_digests(tmp_path)


def test_digests_that_cannot_be_read_are_not_called_damaged(tmp_path):
    (tmp_path / "data.json").mkdir()
    with pytest.raises(UserError, match=r"data.json cannot be read: Is a directory$"):
        read_digests(tmp_path)


MAY_CHANGE = {
    *("model.remat", "model.images_per_lane", "data.data_dir", "data.test_split"),
    *("train.steps", "train.eval_batch_size", "train.micro_batches"),
    *("train.log_every", "train.eval_every", "train.checkpoint_every", "train.patience"),
    *("init_from", "init_partial"),
}


@pytest.mark.parametrize("name", [name for name, _ in leaves(OTHER)])
def test_a_run_goes_on_with_another_value_of_a_resumable_field_alone(name):
    old, new = Config(), other(name)
    if name == "optimizer.schedule":  # OTHER's pieces go with the schedule "piecewise" alone.
        new = replace(old, name, "cosine")
    else:
        # Those have to keep their lengths.
        pieces = {
            "optimizer.boundaries": (10, 30),
            "optimizer.boundary_factors": (0.5, 0.2),
            "model.scales": (2, 8),
        }
        if name == "train.steps":  # The scales' turns are parts of the steps.
            new = replace(OTHER, "train.in_turn", False)
        old = replace(new, name, pieces.get(name, dict(leaves(old))[name]))
    assert dict(leaves(old))[name] != dict(leaves(new))[name]
    if name in MAY_CHANGE:
        check_resumable(old, new)
    else:
        with pytest.raises(UserError, match=f"do not change {name} from "):
            check_resumable(old, new)


COSINE = Config(optimizer=OptimizerConfig(schedule="cosine"))


@pytest.mark.parametrize(
    "old, changes, said",
    [
        (
            OTHER,
            {"model.layers": 4, "seed": 0},
            "change model.layers from 3 to 4, seed from .* to 0",
        ),
        (COSINE, {"train.steps": 6}, "spread over train.steps.*change train.steps from 2500 to 6"),
        (OTHER, {"train.steps": 6}, "spread over train.steps.*change train.steps from 30 to 6"),
    ],
)
def test_what_may_not_change_is_named_with_both_values(old, changes, said):
    new = replace(old, "train.log_every", 1)
    check_resumable(old, new)
    for name, value in changes.items():
        new = replace(new, name, value)
    with pytest.raises(UserError, match=f"{said}(; --allow_change=.*)?$"):
        check_resumable(old, new)


def test_the_hint_names_what_is_allowed_already():
    new = replace(replace(Config(), "optimizer.schedule", "cosine"), "optimizer.clip_norm", 2.0)
    both = "--allow_change=optimizer.clip_norm,optimizer.schedule changes it all the same"
    with pytest.raises(UserError, match=both):
        check_resumable(Config(), new, ["optimizer.schedule"])


def test_processes_wait_until_they_see_the_same_newest_checkpoint(tmp_path, monkeypatch):
    workdir = epath.Path(tmp_path)
    (workdir / "checkpoints" / "3").mkdir(parents=True)
    seen = []
    monkeypatch.setattr(processes, "all_equal", lambda text: seen.append(text) or text == "5")
    monkeypatch.setattr(time, "sleep", lambda _: (workdir / "checkpoints" / "5").mkdir())
    agree(workdir)
    assert seen == ["3", "5"]
    monkeypatch.setattr(processes, "all_equal", lambda text: False)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    with pytest.raises(UserError, match="the processes see different checkpoints"):
        agree(workdir)


def test_no_process_reads_what_an_earlier_attempt_has_left(tmp_path, monkeypatch):
    workdir = epath.Path(tmp_path)
    begin_run(workdir, Config(), IMAGES)
    newer = ImageFormat((3, 4, 1), 5)

    def meet(_):
        """The first process has written by the time at which the others pass."""
        (workdir / "images.json").unlink()
        write_image_format(newer, workdir)
        return True

    monkeypatch.setattr(processes, "first", lambda: False)
    monkeypatch.setattr(processes, "all_equal", meet)
    assert begin_run(workdir, Config(), IMAGES) == newer


@pytest.mark.parametrize("checkpoint", [False, True])
def test_a_run_that_begins_again_has_no_results_of_another(tmp_path, checkpoint):
    texts = "result.json", "history.jsonl", "pictures/samples-3.png"
    own, workdir = "pictures/cat-3.png", epath.Path(tmp_path / "run[1]")
    (workdir / "pictures").mkdir(parents=True)
    if checkpoint:
        (workdir / "checkpoints" / "3").mkdir(parents=True)
    for name in (*texts, own):
        (workdir / name).write_text("")
    begin_run(workdir, Config(), IMAGES)  # What was there is not of a run.
    assert all((workdir / name).exists() for name in (*texts, own))
    begin_run(workdir, OTHER, IMAGES)
    assert [(workdir / name).exists() for name in texts] == 3 * [checkpoint]
    assert (workdir / own).exists()


def test_a_change_of_the_validation_images_cannot_be_allowed():
    plain, fixed, dynamic = (
        replace(Config(), "data.binarize", value) for value in ("none", "fixed", "dynamic")
    )
    changes = check_resumable(dynamic, fixed, ["data.binarize"])
    assert changes == {"data.binarize": ("dynamic", "fixed")}
    with pytest.raises(UserError, match="do not change data.binarize from 'none' to 'fixed'$"):
        check_resumable(plain, fixed, ["data.binarize"])


def test_what_a_workdir_lacks_is_named(tmp_path):
    mesh = devices.local_mesh(1)
    with pytest.raises(UserError, match="holds no training run: there is no config.json in it"):
        open_run(tmp_path / "missing", mesh)
    write_config(Config(), tmp_path)
    with pytest.raises(UserError, match="holds no trained model: there is no images.json in it"):
        open_run(tmp_path, mesh)
    write_image_format(IMAGES, tmp_path)
    with pytest.raises(UserError, match="there is no checkpoint in .* yet"):
        open_run(tmp_path, mesh)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "images.json"]


def save_run(workdir, validations, ema_decay=0.0):
    """Saves a run of as many steps as validations; returns the parameters and their averages."""
    model_config = ModelConfig("pixel_cnn", layers=1, features=2, head_features=2)
    config = Config(model=model_config, optimizer=OptimizerConfig(ema_decay=average))
    write_config(config, workdir)
    write_image_format(IMAGES, workdir)
    model = PixelRNN(model_config, IMAGES.image_shape, IMAGES.levels)
    params, averages = (
        {saved: model.init(jax.random.key(seed + saved)) for saved in (1, 2)} for seed in (0, 10)
    )
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        for saved, nats in enumerate(validations, start=1):
            state = {"params": params[saved], "ema": averages[saved] if average else {}}
            checkpoints.save(saved, state, validation_nats=nats)
    return config, averages if average else params


def test_a_checkpoint_that_a_training_deletes_is_not_damaged(tmp_path, monkeypatch):
    save_run(tmp_path, (3.0, 4.0))
    restore = Checkpoints.restore

    def late(self, template, step):
        shutil.rmtree(tmp_path / "checkpoints" / "1", ignore_errors=True)
        return restore(self, template, step)

    monkeypatch.setattr(Checkpoints, "restore", late)
    assert open_run(tmp_path, devices.local_mesh(1)).step == 2


def test_a_damaged_checkpoint_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints_lib, "DELETED_S", 0.2)
    save_run(tmp_path, (3.0, 4.0))
    path = tmp_path / "checkpoints" / "1"
    digest = path / "digest" / "metadata"
    content = digest.read_bytes()
    for file, damaged in ((digest, content[:-9] + b"?" + content[-8:]), (path / "state", None)):
        if damaged:
            file.write_bytes(damaged)
        else:
            shutil.rmtree(file)
        with pytest.raises(UserError, match=f"^checkpoint {path} cannot .* fall back on step 2"):
            open_run(tmp_path, devices.local_mesh(1))
        digest.write_bytes(content)


@pytest.mark.parametrize("average", [0.0, 0.9])
@pytest.mark.parametrize(("validations", "step"), [((None, None), 2), ((3.0, 4.0), 1)])
def test_a_run_is_opened_with_its_best_parameters(tmp_path, average, validations, step):
    config, saved = save_run(tmp_path, validations, average)
    expected = saved[step]
    (tmp_path / "model.safetensors").write_bytes(b"")  # An older export, which says nothing.

    mesh = devices.make_mesh(2)
    run = open_run(tmp_path, mesh)
    assert (run.config, run.image_format, run.step) == (config, IMAGES, step)
    for actual in (run.params, prnn.load(tmp_path).params):
        jax.tree.map(np.testing.assert_array_equal, actual, expected)
    assert {leaf.sharding for leaf in jax.tree.leaves(run.params)} == {devices.replicated(mesh)}
