"""Training on a tiny array: resuming, stopping, refusing, and what is never saved."""

import functools
import json
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from pixel_rnn_jax import data, evaluate, joint, optimizers, parallel, pictures
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.evaluate import Evaluation
from pixel_rnn_jax.image_model import ImageModel, load
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.metrics import read_records
from pixel_rnn_jax.models.pixel_rnn import PixelRNN
from pixel_rnn_jax.train import TrainResult, train

STEPS = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run whose records, validations and checkpoints fall on different steps."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    sizes = {"train": 40, "validation": 11, "test": 13}
    splits: dict[str, Any] = {
        split: rng.integers(3, size=(size, 3, 4, 1), dtype=np.uint8)
        for split, size in sizes.items()
    }
    np.savez(path, **splits)
    return Config(
        model=ModelConfig(layers=1, features=2, first_kernel=3, head_features=4),
        data=DataConfig(name=str(path), levels=3),
        optimizer=OptimizerConfig(learning_rate=0.01),
        train=TrainConfig(
            steps=STEPS,
            batch_size=8,
            eval_batch_size=8,
            log_every=4,
            eval_every=5,
            checkpoint_every=2,
        ),
        seed=3,
    )


@pytest.fixture(scope="module", autouse=True)
def compile_once() -> Iterator[None]:
    """Lets equal runs share what they compile, which takes nearly all of their time."""
    with pytest.MonkeyPatch.context() as patch:
        for module, name in (
            (optimizers, "build"),
            (joint, "nats_by_scale"),
            (joint, "nats_of_scale"),
            (parallel, "make_train_step"),
            (parallel, "map_batch"),
        ):
            patch.setattr(module, name, functools.cache(getattr(module, name)))
        yield


@pytest.fixture(scope="module")
def straight(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, train(config, workdir)


def _steps(workdir: Path) -> set[int]:
    return {int(path.name) for path in (workdir / "checkpoints").iterdir()}


def _state(workdir: Path, step: int) -> dict[str, np.ndarray]:
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided", UserWarning)
        return checkpointer.restore(workdir / "checkpoints" / str(step) / "state")


def _records(workdir: Path) -> list[dict[str, float]]:
    """The records without what depends on the clock."""
    records = read_records(workdir)
    for record in records:
        record.pop("train/images_per_second", None)
    return records


def _at_batch(monkeypatch: pytest.MonkeyPatch, step: int, do: Callable[[], None]) -> None:
    """Lets `do` be called when training asks for the batch of `step`."""
    train_batches = data.train_batches

    def batches(*args: Any, start_step: int, **kwargs: Any) -> Iterator[Batch]:
        stream = train_batches(*args, start_step=start_step, **kwargs)
        for number, batch in enumerate(stream, start=start_step + 1):
            if number == step:
                do()
            yield batch

    monkeypatch.setattr("pixel_rnn_jax.train.data.train_batches", batches)


def test_run(config: Config, straight: tuple[Path, TrainResult]) -> None:
    workdir, result = straight
    records = _records(workdir)
    assert [record["step"] for record in records] == [4, 5, 6]
    train_names = {"nats", "bits_per_dim", "gradient_norm", "learning_rate"}
    trained = {"step"} | {f"train/{name}" for name in train_names}
    validated = {f"validation/{name}" for name in ("nats", "standard_error", "bits_per_dim")}
    assert [set(record) for record in records] == [
        trained,
        {"step"} | validated,
        trained | validated,
    ]
    assert _steps(workdir) == {5, 6} | {result.step}
    validations = {r["step"]: r["validation/nats"] for r in records if "validation/nats" in r}
    assert result.step == min(validations, key=lambda step: validations[step])
    assert (result.test.images, result.baseline.images) == (13, 13)
    assert result.baseline.nats == pytest.approx(12 * np.log(3), rel=0.1)


def test_losses_that_are_recorded(config: Config, straight: tuple[Path, TrainResult]) -> None:
    workdir, result = straight
    records = {record["step"]: record for record in _records(workdir)}
    # Before much is learnt: the mean over steps of the mean over images.
    assert records[4]["train/nats"] == pytest.approx(12 * np.log(3), rel=0.2)
    # The best checkpoint's average, in training as in the command.
    assert evaluate.evaluate(workdir).nats == pytest.approx(result.test.nats, rel=1e-6)
    stored = traverse_util.unflatten_dict(_state(workdir, result.step), sep="/")
    loss_fn = joint.nats_by_scale(PixelRNN(config.model, (3, 4, 1), 3))
    source = data.open_source(config.data, "validation")
    nats = loss_fn(stored["average"], Batch(source.__getitems__(range(11))))
    recorded = records[result.step]["validation/nats"]
    assert recorded == pytest.approx(float(nats.mean()), rel=1e-6)
    assert evaluate.evaluate(workdir, "validation").nats == pytest.approx(recorded, rel=1e-6)


def _pictures(workdir: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (workdir / "pictures").iterdir()}


def test_pictures(config: Config, straight: tuple[Path, TrainResult]) -> None:
    """At each validation; those of the last one are what its average draws, and can be found."""
    workdir, _ = straight
    drawn = _pictures(workdir)
    names = "samples-5.png", "samples-6.png", "completions-5.png", "completions-6.png"
    assert drawn.keys() == set(names)
    average = traverse_util.unflatten_dict(_state(workdir, STEPS), sep="/")["average"]
    model = ImageModel(PixelRNN(config.model, (3, 4, 1), 3), average)
    samples = model.sample(jax.random.key(config.seed), 16)
    assert isinstance(samples, np.ndarray)
    assert drawn["samples-6.png"] == pictures.png(pictures.grid(samples, 3))
    # There are only eleven validation images.
    images = data.open_source(config.data, "validation").__getitems__(range(11))
    known = np.zeros((11, 3, 4, 1), bool)
    known[:, :1] = True
    completed = model.complete(jax.random.key(config.seed), images, known).images
    picture = pictures.completions(images, known, completed, 3)
    assert drawn["completions-6.png"] == pictures.png(picture)


@pytest.mark.parametrize("step", [3, 5])
def test_sigterm_and_resume(
    config: Config,
    straight: tuple[Path, TrainResult],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    step: int,
) -> None:
    handler = signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        _at_batch(patch, step, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as stopped:
            train(config, tmp_path)
    assert stopped.value.code == 143
    assert f"SIGTERM: stopped after step {step}, which is saved" in capsys.readouterr().out
    assert signal.getsignal(signal.SIGTERM) is handler
    assert max(_steps(tmp_path)) == step

    resumed = train(config, tmp_path)
    workdir, result = straight
    assert resumed == result
    assert _records(tmp_path) == _records(workdir)
    assert _pictures(tmp_path) == _pictures(workdir)
    expected = _state(workdir, STEPS)
    actual = _state(tmp_path, STEPS)
    assert {name.split("/")[0] for name in expected} == {
        "params", "average", "opt_state", "step", "key", "interval",
    }  # fmt: skip
    assert expected.keys() == actual.keys()
    for name in expected:
        np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)


def test_finished_run_is_evaluated_again(
    config: Config,
    straight: tuple[Path, TrainResult],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    workdir, result = straight
    before = (workdir / "metrics.jsonl").read_bytes()
    _at_batch(monkeypatch, STEPS + 1, lambda: pytest.fail("took a step"))
    assert train(config, workdir) == result
    out = capsys.readouterr().out
    assert "all steps are done already (6 of 6)" in out
    assert f"test, step {result.step}: {result.test}\n" in out
    assert f"independent pixels: {result.baseline}; histograms of 40 training images" in out
    folder = workdir / "pictures"
    assert f"\nsamples: {folder}/samples-6.png\ncompletions: {folder}/completions-6.png\n" in out
    assert (workdir / "metrics.jsonl").read_bytes() == before


def test_other_config_is_refused_before_any_work(
    config: Config, straight: tuple[Path, TrainResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    workdir, _ = straight
    before = (workdir / "config.json").read_bytes()
    monkeypatch.setattr("pixel_rnn_jax.train.data.open_source", lambda *_: pytest.fail("worked"))
    other = replace(config, optimizer=replace(config.optimizer, learning_rate=1.0), seed=4)
    with pytest.raises(UserError, match=r"optimizer\.learning_rate from 0.01 to 1.0, seed from 3"):
        train(other, workdir)
    assert (workdir / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_workdir_of_something_else_is_refused(config: Config, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match=f"has {name} but no config.json"):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_wrong_data_leave_no_trace(config: Config, tmp_path: Path) -> None:
    """A mistyped name can be put right with the same workdir."""
    other = replace(config, data=replace(config.data, name=str(tmp_path / "images.npy")))
    with pytest.raises(UserError, match="images.npy"):
        train(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_workdir_that_is_a_file(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be written to: "):
        train(config, tmp_path / "file")


def _spoil(monkeypatch: pytest.MonkeyPatch, step: int, name: str, value: float) -> None:
    """Replaces one metric of one step, and the parameters after it, by `value`."""
    make = parallel.make_train_step

    def make_spoiled(*args: Any) -> Callable[..., Any]:
        step_fn = make(*args)

        def spoiled(state: dict, *arguments: Any) -> tuple[dict, dict]:
            number = int(state["step"]) + 1
            state, measured = step_fn(state, *arguments)
            return state, measured | {name: value} if number == step else measured

        return spoiled

    monkeypatch.setattr("pixel_rnn_jax.train.parallel.make_train_step", make_spoiled)


@pytest.mark.parametrize(
    ("step", "name", "value", "message", "kept"),
    [
        (3, "nats", np.nan, "step 3: the loss is nan", 2),
        (4, "grad_norm", np.inf, "step 4: the norm of the gradient is inf", 2),
        (5, "grad_norm", np.nan, "step 5: the norm of the gradient is nan", 4),
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
    _spoil(monkeypatch, step, name, value)
    with pytest.raises(UserError, match=f"training stopped at {message}.*step {kept} is kept"):
        train(config, tmp_path)
    assert max(_steps(tmp_path)) == kept
    assert all(record["step"] < step for record in read_records(tmp_path))


def test_validation_that_is_not_finite(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    infinite = Evaluation(nats=np.inf, standard_error=np.nan, dims=12, images=11)
    monkeypatch.setattr(evaluate, "measure", lambda *_: infinite)
    with pytest.raises(UserError, match="at step 5: the validation loss is not finite; .* step 4"):
        train(config, tmp_path)
    assert max(_steps(tmp_path)) == 4


def test_diverging_run(config: Config, tmp_path: Path) -> None:
    """A learning rate out of all bounds, without anything planted."""
    wild = replace(config, optimizer=replace(config.optimizer, learning_rate=1e30))
    with pytest.raises(UserError, match=r"training stopped at step [2-6]: the (loss|norm)"):
        train(wild, tmp_path)


def test_signals_are_left_alone_outside_the_main_thread(
    config: Config, straight: tuple[Path, TrainResult]
) -> None:
    workdir, result = straight
    results: list[TrainResult] = []
    thread = threading.Thread(target=lambda: results.append(train(config, workdir)))
    thread.start()
    thread.join()
    assert results == [result]


def test_more_steps_may_be_asked_for_later(
    config: Config, straight: tuple[Path, TrainResult], tmp_path: Path
) -> None:
    short = replace(config, train=replace(config.train, steps=4, log_every=2))
    longer = replace(config, train=replace(config.train, log_every=2))
    train(short, tmp_path)
    train(longer, tmp_path)
    workdir, _ = straight
    expected = _state(workdir, STEPS)
    actual = _state(tmp_path, STEPS)
    for name in expected:
        if not name.startswith("interval"):
            np.testing.assert_array_equal(actual[name], expected[name], err_msg=name)
    assert [record["step"] for record in read_records(tmp_path)] == [2, 4, 5, 6]
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["train"]["steps"] == STEPS


def test_splits_of_different_images_are_refused(config: Config, tmp_path: Path) -> None:
    path = tmp_path / "images.npz"
    sizes = {"train": 4, "validation": 4, "test": 5}
    images: dict[str, Any] = {
        split: np.zeros((6, size, 4, 1), np.uint8) for split, size in sizes.items()
    }
    np.savez(path, **images)
    other = replace(config, data=replace(config.data, name=str(path)))
    with pytest.raises(UserError, match=r"the test images have shape \(5, 4, 1\)"):
        train(other, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.fixture(scope="module")
def scales_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Two scales and two classes, trained in turn."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    arrays: dict[str, Any] = {}
    for split, size in {"train": 40, "validation": 11, "test": 13}.items():
        arrays[split] = rng.integers(3, size=(size, 4, 4, 1), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(2, size=size)
    np.savez(path, **arrays)
    return Config(
        model=ModelConfig(
            "pixel_cnn",
            layers=1,
            features=2,
            first_kernel=3,
            head_features=4,
            scales=(2, 4),
            classes=2,
        ),
        data=DataConfig(name=str(path), levels=3),
        optimizer=OptimizerConfig(learning_rate=0.01, schedule="cosine"),
        train=TrainConfig(
            steps=6, batch_size=8, log_every=1, eval_every=3, checkpoint_every=2, in_turn=True
        ),
    )


def test_scales_in_turn(scales_config: Config, tmp_path: Path, capsys: Any) -> None:
    result = train(scales_config, tmp_path)
    records = _records(tmp_path)
    assert len(result.test.shares) == 2
    assert sum(result.test.shares) == pytest.approx(result.test.nats)
    coarse, fine = result.test.shares
    out = capsys.readouterr().out
    assert f"nats of the scales by height: 2 {coarse:.3f}, 4 {fine:.3f}\n" in out
    # Each turn has a schedule of its own.
    rates = [record["train/learning_rate"] for record in records]
    assert rates[:3] == rates[3:] and rates[0] == pytest.approx(0.01) and rates[1] < 0.01
    for record in records:
        if "validation/nats" in record:
            shares = (record[f"validation/nats_of_height_{height}"] for height in (2, 4))
            assert sum(shares) == pytest.approx(record["validation/nats"])
    # Only the loss of the own scale, and only its parameters.
    by_scale = [
        [record.get(f"train/nats_of_height_{height}", 0) for record in records] for height in (2, 4)
    ]
    assert all(by_scale[0][:3]) and not any(by_scale[0][3:])
    assert all(by_scale[1][3:]) and not any(by_scale[1][:3])
    for record in records[:3]:  # Of its own four values.
        nats = record["train/bits_per_dim_of_height_2"] * 4 * np.log(2)
        assert record["train/nats_of_height_2"] == pytest.approx(nats)
    first, last = _state(tmp_path, 4), _state(tmp_path, 6)
    changed = {
        name.split("/")[1]
        for name in first
        if name.startswith("params/") and (first[name] != last[name]).any()
    }
    assert changed == {"scale_1"}
    evaluation = evaluate.evaluate(tmp_path)
    assert evaluation.shares == pytest.approx(result.test.shares)


@pytest.mark.parametrize("step", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_scales_in_turn_resume(
    scales_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """Also at the very step at which the next scale begins."""
    result = train(scales_config, tmp_path / "straight")
    with monkeypatch.context() as patch:
        _at_batch(patch, step, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit):
            train(scales_config, tmp_path / "stopped")
    assert train(scales_config, tmp_path / "stopped") == result
    assert _records(tmp_path / "stopped") == _records(tmp_path / "straight")
    expected = _state(tmp_path / "straight", 6)
    for name, values in _state(tmp_path / "stopped", 6).items():
        np.testing.assert_array_equal(values, expected[name], err_msg=name)


def test_average_of_a_scale_in_turn(
    scales_config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with its turn, and does not go on when that is over."""
    _at_batch(monkeypatch, 4, lambda: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(SystemExit):
        train(scales_config, tmp_path)
    before, after = _state(tmp_path, 3), _state(tmp_path, 4)
    for name, value in after.items():
        kind, _, leaf = name.partition("/")
        if kind == "average" and leaf.startswith("scale_1/"):
            start, first = before[f"params/{leaf}"], after[f"params/{leaf}"]
            np.testing.assert_array_equal(before[name], start)
            np.testing.assert_allclose(value, start * 2 / 11 + first * 9 / 11, rtol=1e-5, atol=1e-7)
        elif kind == "average":
            np.testing.assert_array_equal(value, before[name])


def test_scales_at_once(scales_config: Config, tmp_path: Path) -> None:
    config = replace(scales_config, train=replace(scales_config.train, in_turn=False))
    result = train(config, tmp_path)
    assert sum(result.test.shares) == pytest.approx(result.test.nats)
    model = load(tmp_path)
    source = data.source_of(config, "test")
    records = np.arange(13)
    nats = -model.log_prob(source.__getitems__(records), source.labels(records))
    assert nats.mean() == pytest.approx(result.test.nats, rel=1e-5)


def test_set_without_labels_is_refused(config: Config, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has no labels: model.classes must be 0"):
        train(replace(config, model=replace(config.model, classes=2)), tmp_path)
    assert list(tmp_path.iterdir()) == []
