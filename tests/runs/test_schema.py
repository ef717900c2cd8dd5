"""The fields of a config: what is refused, by name, and what becomes Python's own type."""

import dataclasses
import math

import numpy as np
import pytest
from helpers.workdirs import with_field

from pixel_rnn_jax.runs import config as cfg
from pixel_rnn_jax.system.errors import UserError


@pytest.mark.parametrize(
    "name, values",
    [
        *((f"model.{field}", [0]) for field in ("features", "head_features", "mixtures")),
        *((f"train.{field}", [0]) for field in ("steps", "batch_size", "eval_batch_size")),
        *((f"train.{field}", [0]) for field in ("log_every", "eval_every", "checkpoint_every")),
        ("model.layers", [0, -1, 16.0, True, "16", None]),
        ("model.first_kernel", [6, 1]),
        ("model.kernel", [4]),
        ("model.num_classes", [-1, 1]),
        ("model.scales", [(8,), (8, 8), (8, 4), (3, 8), (0, 8), (4.5, 9)]),
        ("model.scale_architectures", [("row_lstm",)]),
        ("model.residual", [1]),
        ("model.architecture", [3]),
        ("model.input", ["pixels", 3]),
        ("data.name", ["", None]),
        ("data.levels", [1, -2]),
        ("optimizer.learning_rate", [0.0, math.nan, math.inf, True]),
        ("optimizer.weight_decay", [-0.5]),
        ("optimizer.ema_decay", [1.0, -0.1]),
        ("train.micro_batches", [-1, 3]),
        ("seed", [-1, 2**32]),
        ("model", [{}]),
    ],
)
def test_impossible_value_is_refused_by_name(name, values):
    for value in values:
        with pytest.raises(UserError, match=rf"^{name} "):
            with_field(cfg.Config(), name, value)


@pytest.mark.parametrize(
    "changes, names",
    [
        ({"model.num_classes": 2, "model.condition_map": 1}, "condition_map.*num_classes"),
        ({"model.condition_map": 2, "data.flip": True}, "data.flip"),
    ],
)
def test_fields_that_do_not_go_together_are_refused(changes, names):
    first, second = changes.items()
    config = with_field(cfg.Config(), *first)
    with pytest.raises(UserError, match=names):
        with_field(config, *second)


def test_numbers_of_numpy_and_integers_for_floats_become_python_numbers():
    model = cfg.ModelConfig(features=np.int64(12), scales=[np.int32(2), 4])
    optimizer = cfg.OptimizerConfig(learning_rate=1, clip_norm=np.float32(0.5))
    values = (model.features, model.scales, optimizer.learning_rate, optimizer.clip_norm)
    assert repr(values) == "(12, (2, 4), 1.0, 0.5)"


def test_config_of_a_scale():
    same = cfg.ModelConfig("row_lstm", scales=(4, 8), copy_coarse=False)
    model = dataclasses.replace(same, scale_architectures=("pixel_cnn", "row_lstm"))
    one = model.scale_config(0)
    assert (one.architecture, one.scales, one.scale_architectures) == ("pixel_cnn", (), ())
    assert same.scale_config(0).architecture == "row_lstm"
    assert model.redraws_coarse and not one.redraws_coarse
    assert not dataclasses.replace(model, copy_coarse=True).redraws_coarse


def test_no_condition_prints():
    assert "condition" in str(cfg.Config().model.condition)
