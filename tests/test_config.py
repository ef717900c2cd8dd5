"""Configs: what is refused and how it is said, round trips, the rule of resuming, configs/*.py."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import ml_collections
import numpy as np
import pytest

from pixel_rnn_jax import config as cfg
from pixel_rnn_jax.errors import UserError

CONFIGS = Path(__file__).parents[1] / "configs"

# Differs from the defaults in every field.
OTHER = cfg.Config(
    model=cfg.ModelConfig(
        architecture="row_lstm",
        layers=3,
        features=5,
        first_kernel=5,
        kernel=5,
        head_features=9,
        output="logistic",
        mixtures=3,
        scales=(4, 8),
        scale_architectures=("pixel_cnn", "row_lstm"),
        exact=False,
        classes=4,
        residual=False,
        skip=False,
        dtype="bfloat16",
        remat=True,
        pack=2,
    ),
    data=cfg.DataConfig(
        name="mnist",
        data_dir="elsewhere",
        levels=2,
        binarize="fixed",
        train_split="train[:50000]",
        validation_split="train[50000:]",
        test_split="test[:10]",
    ),
    optimizer=cfg.OptimizerConfig(
        name="adam",
        learning_rate=0.25,
        schedule="piecewise",
        warmup_steps=7,
        boundaries=(10, 20),
        factors=(0.5, 0.1),
        clip_norm=0.0,
        average=0.0,
    ),
    train=cfg.TrainConfig(
        steps=30,
        batch_size=2,
        micro_batches=2,
        eval_batch_size=3,
        log_every=4,
        eval_every=5,
        checkpoint_every=6,
        in_turn=True,
    ),
    seed=2**32 - 1,
)


def replace(config: cfg.Config, name: str, value: Any) -> cfg.Config:
    """Returns `config` with another value in the field that has this dotted name."""
    group, _, field = name.rpartition(".")
    change: dict[str, Any] = {field: value}
    if group:
        change = {group: dataclasses.replace(getattr(config, group), **change)}
    return dataclasses.replace(config, **change)


@pytest.mark.parametrize(
    "name, value, reason",
    [
        ("model.architecture", "lstm", 'must be one of "pixel_cnn", "row_lstm", "diagonal_bilstm"'),
        ("model.layers", 0, "must be at least 1, got 0"),
        ("model.features", 0, "must be at least 1, got 0"),
        ("model.first_kernel", 6, "must be odd and at least 3, got 6"),
        ("model.first_kernel", 1, "must be odd and at least 3, got 1"),
        ("model.kernel", 4, "must be odd and at least 3, got 4"),
        ("model.kernel", 1, "must be odd and at least 3, got 1"),
        ("model.head_features", 0, "must be at least 1, got 0"),
        ("model.dtype", "float16", 'must be one of "float32", "bfloat16", "float64"'),
        ("model.pack", -1, "must be at least 0, got -1"),
        ("model.output", "gauss", 'must be one of "softmax", "logistic", "continuous"'),
        ("model.mixtures", 0, "must be at least 1, got 0"),
        ("model.classes", -1, "must be 0 or at least 2, got -1"),
        ("model.classes", 1, "must be 0 or at least 2, got 1"),
        ("model.scales", (8,), "at least two heights"),
        ("model.scales", (8, 8), "each is a larger multiple of the one before, got (8, 8)"),
        ("model.scales", (8, 4), "each is a larger multiple of the one before, got (8, 4)"),
        ("model.scales", (3, 8), "each is a larger multiple of the one before, got (3, 8)"),
        ("model.scale_architectures", ("row_lstm",), "name one architecture for each of"),
        ("model.features", 16.0, "must be an integer, got 16.0"),
        ("model.features", True, "must be an integer, got True"),
        ("model.features", "16", "must be an integer, got '16'"),
        ("model.features", None, "must be an integer, got None"),
        ("model.residual", 1, "must be true or false, got 1"),
        ("model.architecture", 3, "must be text, got 3"),
        ("data.name", "", "must not be empty"),
        ("data.train_split", "", "must not be empty"),
        ("data.validation_split", "", "must not be empty"),
        ("data.test_split", "", "must not be empty"),
        ("data.levels", 1, "must be 0 or at least 2, got 1"),
        ("data.levels", -2, "must be 0 or at least 2, got -2"),
        ("data.binarize", "half", 'must be one of "none", "dynamic", "fixed", "threshold"'),
        ("optimizer.name", "sgd", 'must be one of "rmsprop", "adam"'),
        ("optimizer.learning_rate", 0, "must be greater than 0, got 0.0"),
        ("optimizer.learning_rate", float("nan"), "must be a finite number, got nan"),
        ("optimizer.learning_rate", float("inf"), "must be a finite number, got inf"),
        ("optimizer.learning_rate", True, "must be a finite number, got True"),
        ("optimizer.schedule", "step", 'must be one of "constant", "cosine", "piecewise"'),
        ("optimizer.warmup_steps", -1, "must be at least 0, got -1"),
        ("optimizer.clip_norm", -0.5, "must be at least 0, got -0.5"),
        ("optimizer.average", 1.0, "must be at least 0 and below 1, got 1.0"),
        ("optimizer.average", -0.1, "must be at least 0 and below 1, got -0.1"),
        ("optimizer.boundaries", (10,), "must be empty unless"),
        ("optimizer.factors", (0.1,), "must be empty unless"),
        ("optimizer.boundaries", (1.5,), "must be a tuple of integers, got (1.5,)"),
        ("optimizer.factors", 0.1, "must be a tuple of finite numbers, got 0.1"),
        ("train.steps", 0, "must be at least 1, got 0"),
        ("train.batch_size", 0, "must be at least 1, got 0"),
        ("train.micro_batches", 0, "must be at least 1, got 0"),
        ("train.micro_batches", 3, "must divide train.batch_size (16), got 3"),
        ("train.eval_batch_size", 0, "must be at least 1, got 0"),
        ("train.log_every", 0, "must be at least 1, got 0"),
        ("train.eval_every", 0, "must be at least 1, got 0"),
        ("train.checkpoint_every", 0, "must be at least 1, got 0"),
        ("seed", -1, "must be at least 0 and below 2**32, got -1"),
        ("seed", 2**32, "must be at least 0 and below 2**32, got 4294967296"),
        ("model", {}, "must be a ModelConfig, got {}"),
    ],
)
def test_impossible_value_is_refused_by_name(name, value, reason):
    with pytest.raises(UserError) as error:
        replace(cfg.Config(), name, value)
    assert str(error.value).startswith(name) or "empty unless" in reason
    assert name in str(error.value)
    assert reason in str(error.value)


@pytest.mark.parametrize(
    "boundaries, factors, reason",
    [
        ((), (), "optimizer.boundaries must not be empty"),
        ((0,), (0.1,), "optimizer.boundaries must be positive and increasing, got (0,)"),
        ((20, 20), (0.1, 0.1), "optimizer.boundaries must be positive and increasing"),
        ((10, 20), (0.1,), "optimizer.factors must have as many values"),
        ((10,), (0.0,), "optimizer.factors must be greater than 0"),
    ],
)
def test_impossible_pieces_are_refused(boundaries, factors, reason):
    with pytest.raises(UserError) as error:
        cfg.OptimizerConfig(schedule="piecewise", boundaries=boundaries, factors=factors)
    assert str(error.value).startswith(reason)


def test_cosine_needs_steps_after_the_warmup():
    train = cfg.TrainConfig(steps=100)
    cfg.Config(train=train, optimizer=cfg.OptimizerConfig(schedule="cosine", warmup_steps=99))
    cfg.Config(train=train, optimizer=cfg.OptimizerConfig(warmup_steps=100))
    with pytest.raises(UserError, match=r"optimizer\.warmup_steps must be below train\.steps"):
        cfg.Config(train=train, optimizer=cfg.OptimizerConfig(schedule="cosine", warmup_steps=100))


def test_numbers_of_numpy_and_integers_for_floats_become_python_numbers():
    model = cfg.ModelConfig(features=np.int64(12))
    optimizer = cfg.OptimizerConfig(
        learning_rate=1,
        schedule="piecewise",
        boundaries=[np.int32(5)],
        factors=[np.float32(0.5)],
    )
    assert type(model.features) is int
    assert type(optimizer.learning_rate) is float
    assert optimizer.boundaries == (5,) and type(optimizer.boundaries[0]) is int
    assert optimizer.factors == (0.5,) and type(optimizer.factors[0]) is float


def test_a_config_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.Config().model.features = 3


@pytest.mark.parametrize(
    "values, message",
    [
        ({"model": {"featurs": 3}}, "no field model.featurs in the config; did you mean model.fea"),
        ({"modle": {"features": 3}}, "no field modle in the config; did you mean model?"),
        ({"steps": 3}, "no field steps in the config; did you mean train.steps?"),
        ({"model": 3}, "model must be a group of fields, got 3"),
        (None, "the config must be a group of fields, got None"),
    ],
)
def test_unknown_field_is_refused_with_the_nearest_name(values, message):
    with pytest.raises(UserError) as error:
        cfg.from_config_dict(values)
    assert message in str(error.value)
    if isinstance(values, dict):
        with pytest.raises(UserError) as error:
            cfg.from_config_dict(ml_collections.ConfigDict(values))
        assert message in str(error.value)


def test_absent_fields_keep_their_defaults():
    config = cfg.from_config_dict(ml_collections.ConfigDict({"model": {"layers": 2}}))
    assert config == replace(cfg.Config(), "model.layers", 2)


def test_the_example_differs_from_the_defaults_everywhere():
    names = [name for name, _ in cfg.leaves(cfg.Config())]
    assert sorted(cfg.changed_fields(cfg.Config(), OTHER)) == sorted(names)


def test_round_trip_through_a_config_dict():
    assert cfg.from_config_dict(cfg.to_config_dict(OTHER)) == OTHER
    assert cfg.from_config_dict(cfg.to_config_dict(OTHER).lock()) == OTHER


def test_round_trip_through_json():
    assert cfg.from_json(cfg.to_json(OTHER)) == OTHER


def test_round_trip_through_a_workdir(tmp_path):
    workdir = tmp_path / "new" / "run"
    cfg.write_config(cfg.Config(), workdir)
    cfg.write_config(OTHER, workdir)
    assert cfg.read_config(workdir) == OTHER
    assert [path.name for path in workdir.iterdir()] == ["config.json"]


def test_a_write_that_fails_leaves_the_old_config(tmp_path, monkeypatch):
    cfg.write_config(OTHER, tmp_path)
    monkeypatch.setattr(cfg, "to_json", lambda config: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cfg.write_config(cfg.Config(), tmp_path)
    assert cfg.read_config(tmp_path) == OTHER


@pytest.mark.parametrize(
    "damaged, reason",
    [
        (cfg.to_json(OTHER)[:-5].encode(), "it is not JSON"),
        (b"", "it is not JSON"),
        (b"\xff\x00", "codec can't decode"),
        (b"[1, 2]", "it does not hold the fields model, data, optimizer, train, seed"),
        (b'{"model": {}}', "it does not hold the fields model, data, optimizer, train, seed"),
        (cfg.to_json(OTHER).replace("features", "width").encode(), "no field model.width"),
        (cfg.to_json(OTHER).replace("0.25", "NaN").encode(), "optimizer.learning_rate must be"),
    ],
)
def test_damaged_or_foreign_file_is_refused(tmp_path, damaged, reason):
    path = tmp_path / "config.json"
    path.write_bytes(damaged)
    with pytest.raises(UserError) as error:
        cfg.read_config(tmp_path)
    assert str(error.value).startswith(f"{path} is not a config that this version can read: ")
    assert reason in str(error.value)


@pytest.mark.parametrize("workdir", ["", "missing"])
def test_workdir_without_a_run_is_refused(tmp_path, workdir):
    with pytest.raises(UserError, match="holds no training run: there is no config.json in it"):
        cfg.read_config(tmp_path / workdir)


MAY_CHANGE = {
    "model.remat",
    "model.pack",
    "data.data_dir",
    "data.test_split",
    "train.steps",
    "train.eval_batch_size",
    "train.micro_batches",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
}


@pytest.mark.parametrize("name", [name for name, _ in cfg.leaves(OTHER)])
def test_a_run_goes_on_with_another_value_of_a_resumable_field_alone(name):
    if name == "optimizer.schedule":
        # By itself, since OTHER's pieces go with the schedule "piecewise" alone.
        old = cfg.Config()
        new = replace(old, name, "cosine")
    else:
        # Those have to keep their lengths.
        pieces = {
            "optimizer.boundaries": (10, 30),
            "optimizer.factors": (0.5, 0.2),
            "model.scales": (2, 8),
        }
        # The scales' turns are parts of the steps.
        new = replace(OTHER, "train.in_turn", False) if name == "train.steps" else OTHER
        old = replace(new, name, pieces.get(name, dict(cfg.leaves(cfg.Config()))[name]))
    assert set(cfg.changed_fields(old, new)) == {name}
    if name in MAY_CHANGE:
        cfg.check_resumable(old, new)
    else:
        with pytest.raises(UserError) as error:
            cfg.check_resumable(old, new)
        assert f"do not change {name} from " in str(error.value)


def test_resuming_names_every_refused_field_with_both_values():
    new = replace(replace(replace(OTHER, "model.layers", 4), "seed", 0), "train.log_every", 99)
    with pytest.raises(UserError) as error:
        cfg.check_resumable(OTHER, new)
    assert str(error.value).endswith("model.layers from 3 to 4, seed from 4294967295 to 0")


def test_steps_are_fixed_under_the_cosine_schedule():
    old = cfg.Config(optimizer=cfg.OptimizerConfig(schedule="cosine"))
    with pytest.raises(UserError, match="spread over train.steps.*train.steps from 2500 to 5000"):
        cfg.check_resumable(old, replace(old, "train.steps", 5000))
    cfg.check_resumable(old, replace(old, "train.log_every", 1))


def test_steps_are_fixed_when_scales_take_turns():
    with pytest.raises(UserError, match="spread over train.steps.*train.steps from 30 to 60"):
        cfg.check_resumable(OTHER, replace(OTHER, "train.steps", 60))


def test_turns():
    assert (OTHER.turn, cfg.Config().turn) == (15, 2500)
    with pytest.raises(UserError, match="train.steps must be a multiple of the number"):
        replace(OTHER, "train.steps", 31)
    with pytest.raises(UserError, match="train.in_turn is for several model.scales"):
        replace(cfg.Config(), "train.in_turn", True)


def test_config_of_a_scale():
    one = OTHER.model.of_scale(0)
    assert (one.architecture, one.scales, one.scale_architectures) == ("pixel_cnn", (), ())
    assert replace(OTHER, "model.scale_architectures", ()).model.of_scale(0).architecture == (
        "row_lstm"
    )


@pytest.mark.parametrize(
    "name, kind",
    [
        ("model.layers", "an integer"),
        ("model.skip", "true or false"),
        ("data.name", "text"),
        ("optimizer.average", "a finite number"),
        ("optimizer.boundaries", "a tuple of integers"),
        ("optimizer.factors", "a tuple of finite numbers"),
        ("model.scale_architectures", "a tuple of words"),
        ("seed", "an integer"),
    ],
)
def test_field_kind(name, kind):
    assert cfg.field_kind(name) == kind


def test_field_kind_of_a_group_or_an_unknown_name():
    with pytest.raises(UserError, match="train is a group of fields; set one of them"):
        cfg.field_kind("train")
    with pytest.raises(UserError, match=r"no field trai\.steps in .* did you mean train\.steps\?"):
        cfg.field_kind("trai.steps")


def from_file(name: str, *arguments: str) -> cfg.Config:
    """Returns the config that configs/NAME.py gives."""
    return cfg.from_config_dict(
        runpy.run_path(str(CONFIGS / f"{name}.py"))["get_config"](*arguments)
    )


# Section 5 of the paper: architecture, layers, features, head, residual, batch.
PAPER = {
    "mnist": ("diagonal_bilstm", 7, 16, 32, True, 16),
    "mnist:pixel_cnn": ("pixel_cnn", 7, 16, 32, True, 16),
    "cifar10": ("diagonal_bilstm", 12, 128, 1024, True, 16),
    "cifar10:row_lstm": ("row_lstm", 12, 128, 1024, True, 16),
    "cifar10:pixel_cnn": ("pixel_cnn", 15, 128, 1024, True, 16),
    "imagenet32": ("row_lstm", 12, 384, 1024, True, 64),
    "imagenet64": ("row_lstm", 4, 512, 1024, False, 32),
}


@pytest.mark.parametrize("source", PAPER)
def test_config_files_have_the_settings_of_the_paper(source):
    name, *argument = source.split(":")
    config = from_file(name, *argument)
    model = config.model
    assert (
        model.architecture,
        model.layers,
        model.features,
        model.head_features,
        model.residual,
        config.train.batch_size,
    ) == PAPER[source]
    assert (model.first_kernel, model.kernel, model.skip) == (7, 3, True)
    assert config.optimizer.name == "rmsprop"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_config_files_take_any_architecture_and_name_their_command(path):
    for architecture in cfg.ARCHITECTURES:
        assert from_file(path.stem, architecture).model.architecture == architecture
    scales = from_file(path.stem, "multi_scale").model.scales
    assert len(scales) >= 2
    both = from_file(path.stem, "pixel_cnn,multi_scale").model
    assert (both.architecture, both.scales) == ("pixel_cnn", scales)
    with pytest.raises(UserError, match='must be one of "pixel_cnn", .* got "transformer"'):
        from_file(path.stem, "transformer")
    text = runpy.run_path(str(path))["__doc__"]
    assert f"python -m pixel_rnn_jax.main --config=configs/{path.name}\n" in text
    for part in ("Data:", "Hardware:", "Results:"):
        assert part in text


def test_image_format_is_read_as_it_was_written_and_does_not_change(tmp_path):
    images = cfg.ImageFormat((28, 30, 3), 17)
    cfg.write_image_format(images, tmp_path)
    cfg.write_image_format(images, tmp_path)
    assert cfg.read_image_format(tmp_path) == images
    other = dataclasses.replace(images, levels=2)
    with pytest.raises(UserError, match=r"\(28, 30, 3\) and 17 levels.* \(28, 30, 3\) and 2 lev"):
        cfg.write_image_format(other, tmp_path)
    assert cfg.read_image_format(tmp_path) == images


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"image_shape": [1, 2], "levels": 3}'])
def test_damaged_image_format_is_refused_by_name(tmp_path, text):
    with pytest.raises(UserError, match=r"no images\.json"):
        cfg.read_image_format(tmp_path)
    (tmp_path / "images.json").write_text(text)
    with pytest.raises(UserError, match=r"images\.json is damaged"):
        cfg.read_image_format(tmp_path)
