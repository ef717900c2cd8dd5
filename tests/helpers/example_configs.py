"""Configs that together differ from the defaults in every field, and copies of them."""

import dataclasses
from typing import Any

from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.training import config as cfg

Fields = dict[str, Any]
_SIZES: Fields = dict(layers=3, features=5, first_kernel=5, kernel=5, head_features=9)
_SCALES: Fields = dict(
    scales=(4, 8), scale_architectures=("pixel_cnn", "row_lstm"), copy_coarse=False
)
_FLAGS: Fields = dict(residual=False, skip=False, remat=True)
_KINDS: Fields = dict(
    architecture="row_lstm", output="discretized_logistic_mixture", dtype="bfloat16"
)
_INPUT: Fields = dict(input="categorical", head="own")
_NUMBERS: Fields = dict(mixtures=3, num_classes=4, dropout=0.25, images_per_lane=2)
_SPLITS = ("train[:50000]", "train[50000:]", "test[:10]")
_RATE: Fields = dict(learning_rate=0.25, schedule="constant", warmup_steps=7)
_INTERVALS = dict(log_every=4, eval_every=5, checkpoint_every=6)
_BATCHES = dict(batch_size=2, micro_batches=2, eval_batch_size=3)

OTHER = cfg.Config(
    ModelConfig(**_SIZES, **_SCALES, **_FLAGS, **_KINDS, **_INPUT, **_NUMBERS),
    DataConfig("mnist", "elsewhere", 2, "fixed", False, *_SPLITS),
    cfg.OptimizerConfig("adam", clip_norm=0.0, ema_decay=0.0, weight_decay=0.2, **_RATE),
    cfg.TrainConfig(steps=30, **_BATCHES, **_INTERVALS),
    seed=2**32 - 1,
)


def _conditioned(**condition: Any) -> cfg.Config:
    """Returns OTHER with another condition: a model has one."""
    model = dataclasses.replace(OTHER.model, num_classes=0, **condition)
    return dataclasses.replace(OTHER, model=model)


_STARTED = dataclasses.replace(
    OTHER,
    data=dataclasses.replace(OTHER.data, flip=True),
    train=dataclasses.replace(OTHER.train, patience=2),
    init_from="runs/a",
)
_TOTAL = dataclasses.replace(OTHER.model, scales=(), scale_architectures=(), total=3)
OTHERS = (
    OTHER,
    _conditioned(condition_vector=3),
    _conditioned(condition_map=2),
    _STARTED,
    dataclasses.replace(OTHER, model=_TOTAL),
)
"""OTHER differs in every field but some that exclude others, which one of the rest has each."""


def other(name: str) -> cfg.Config:
    """Returns the first of OTHERS that differs from the defaults in the field of this name."""
    default = dict(cfg.leaves(cfg.Config()))[name]
    return next(config for config in OTHERS if dict(cfg.leaves(config))[name] != default)


def replace(config: cfg.Config, name: str, value: Any) -> cfg.Config:
    """Returns `config` with another value in the field that has this dotted name."""
    group, _, field = name.rpartition(".")
    change: dict[str, Any] = {field: value}
    if group:
        change = {group: dataclasses.replace(getattr(config, group), **change)}
    return dataclasses.replace(config, **change)
