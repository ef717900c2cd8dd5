"""The fields of a config: what is refused, how it is said, and what becomes Python's own type."""

import dataclasses

import numpy as np
import pytest
from example_configs import OTHER, replace

from pixel_rnn_jax import config as cfg
from pixel_rnn_jax.errors import UserError


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


def test_turns():
    assert (OTHER.steps_per_scale, cfg.Config().steps_per_scale) == (15, 2500)
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
    assert OTHER.model.plain and not one.plain
    assert not replace(OTHER, "model.exact", True).model.plain
