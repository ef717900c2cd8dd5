"""The fields of a config: what is refused, how it is said, and what becomes Python's own type."""

import dataclasses
import math

import numpy as np
import pytest
from example_configs import OTHER, replace

from pixel_rnn_jax import config as cfg
from pixel_rnn_jax.errors import UserError


@pytest.mark.parametrize(
    "names, values, reason",
    [
        ("model.layers features head_features mixtures", [0], "be at least 1"),
        ("train.steps batch_size eval_batch_size", [0], "be at least 1"),
        ("train.micro_batches", [-1], "be at least 0"),
        ("train.log_every eval_every checkpoint_every", [0], "be at least 1"),
        ("model.images_per_lane condition_vector condition_map", [-1], "be at least 0"),
        ("model.first_kernel kernel", [6, 1], "be odd and at least 3"),
        ("model.num_classes", [-1, 1], "be 0 or at least 2"),
        (
            "model.scales",
            [(8,), (8, 8), (8, 4), (3, 8), (0, 8)],
            "be empty, or at least two heights, each a larger multiple of the one before",
        ),
        (
            "model.scale_architectures",
            [("row_lstm",)],
            "be empty or name one architecture for each of model.scales (0)",
        ),
        ("model.features", [16.0, True, "16", None], "be an integer"),
        ("model.residual", [1], "be true or false"),
        ("model.architecture", [3], "be text"),
        ("data.name train_split validation_split test_split", [""], "not be empty"),
        ("data.levels", [1, -2], "be 0 or at least 2"),
        ("optimizer.learning_rate", [0.0], "be greater than 0"),
        ("optimizer.learning_rate", [math.nan, math.inf, True], "be a finite number"),
        ("optimizer.warmup_steps", [-1], "be at least 0"),
        ("optimizer.clip_norm weight_decay", [-0.5], "be at least 0"),
        ("optimizer.ema_decay", [1.0, -0.1], "be at least 0 and below 1"),
        ("optimizer.boundaries", [(1.5,)], "be a tuple of integers"),
        ("optimizer.boundary_factors", [0.1], "be a tuple of finite numbers"),
        ("train.micro_batches", [3], "divide train.batch_size (16)"),
        ("seed", [-1, 2**32], "be at least 0 and below 2**32"),
        ("model", [{}], "be a ModelConfig"),
    ],
)
def test_impossible_value_is_refused_by_name(names, values, reason):
    first, *others = names.split()
    for name in [first, *(f"{first.split('.')[0]}.{other}" for other in others)]:
        for value in values:
            with pytest.raises(UserError) as error:
                replace(cfg.Config(), name, value)
            assert str(error.value) == f"{name} must {reason}, got {value!r}"


@pytest.mark.parametrize(
    "name, value, choices",
    [
        ("model.architecture", "lstm", '"pixel_cnn", "row_lstm", "diagonal_bilstm"'),
        ("model.dtype", "float16", '"float32", "bfloat16", "float64"'),
        ("model.input", "embedding", '"scalar", "categorical"'),
        (
            "model.output",
            "gauss",
            '"softmax", "discretized_logistic_mixture", "logistic_mixture", "gaussian_mixture"',
        ),
        ("data.binarize", "half", '"none", "dynamic", "fixed", "threshold"'),
        ("optimizer.name", "sgd", '"rmsprop", "adam", "muon"'),
        ("optimizer.schedule", "step", '"constant", "cosine", "piecewise"'),
    ],
)
def test_choices(name, value, choices):
    with pytest.raises(UserError) as error:
        replace(cfg.Config(), name, value)
    assert str(error.value) == f'{name} must be one of {choices}, got "{value}"'


@pytest.mark.parametrize(
    "fields, reason",
    [
        (dict(), "boundaries must be one or more .* got \\(\\)"),
        (
            dict(boundaries=(0,), boundary_factors=(0.1,)),
            "boundaries must be .* increasing .* got \\(0,\\)",
        ),
        (
            dict(boundaries=(20, 20), boundary_factors=(0.1, 0.1)),
            "boundaries must be .* increasing",
        ),
        (dict(boundaries=(10, 20), boundary_factors=(0.1,)), "factors must have as many values"),
        (dict(boundaries=(10,), boundary_factors=(0.0,)), "factors must be greater than 0"),
        (dict(schedule="cosine", boundaries=(10,)), "boundaries and .* must be empty unless"),
        (
            dict(schedule="cosine", boundary_factors=(0.1,)),
            "boundaries and .* must be empty unless",
        ),
    ],
)
def test_impossible_pieces_are_refused(fields, reason):
    with pytest.raises(UserError, match=rf"^optimizer\.{reason}"):
        cfg.OptimizerConfig(**{"schedule": "piecewise"} | fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            dict(num_classes=2, condition_map=1),
            "a model has one condition: set one of model.num_classes",
        ),
        (dict(condition_vector=3, condition_map=1), "a model has one condition"),
        (
            dict(input="categorical", output="logistic_mixture"),
            'model.output "logistic_mixture" is for values that are numbers: model.input must be',
        ),
        (dict(input="categorical", output="gaussian_mixture"), 'model.input must be "scalar"'),
        (
            dict(output="gaussian_mixture", scales=(2, 4)),
            'model.output "gaussian_mixture" is for a single scale',
        ),
        (
            dict(output="logistic_mixture", scales=(2, 4)),
            "is for a single scale: empty model.scales",
        ),
    ],
)
def test_fields_that_do_not_go_together_are_refused(fields, message):
    with pytest.raises(UserError, match=message):
        cfg.ModelConfig(**fields)


def test_cosine_needs_steps_after_the_warmup():
    train = cfg.TrainConfig(steps=100)
    cfg.Config(train=train, optimizer=cfg.OptimizerConfig(schedule="cosine", warmup_steps=99))
    cfg.Config(train=train, optimizer=cfg.OptimizerConfig(warmup_steps=100))
    with pytest.raises(UserError, match=r"optimizer\.warmup_steps must be below train\.steps"):
        cfg.Config(train=train, optimizer=cfg.OptimizerConfig(schedule="cosine", warmup_steps=100))


def test_numbers_of_numpy_and_integers_for_floats_become_python_numbers():
    optimizer = cfg.OptimizerConfig(
        learning_rate=1, schedule="piecewise", boundaries=[np.int32(5)], factors=[np.float32(0.5)]
    )
    found = (cfg.ModelConfig(features=np.int64(12)).features, optimizer.learning_rate)
    found += (optimizer.boundaries, optimizer.boundary_factors)
    assert repr(found) == "(12, 1.0, (5,), (0.5,))"


def test_maps_are_not_mirrored():
    flip = cfg.DataConfig(flip=True)
    cfg.Config(data=flip, model=cfg.ModelConfig(condition_vector=2))
    with pytest.raises(UserError, match="data.flip mirrors images, but not the maps of"):
        cfg.Config(data=flip, model=cfg.ModelConfig(condition_map=2))


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
    assert not replace(OTHER, "model.copy_coarse", True).model.plain
