"""A config that differs from the defaults in every field, and copies with another value."""

import dataclasses
from typing import Any

from pixel_rnn_jax import config as cfg

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
