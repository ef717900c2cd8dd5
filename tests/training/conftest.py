"""A tiny run of two scales and two classes, and what makes many such runs cheap."""

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.runs.config import Config, OptimizerConfig, TrainConfig
from pixel_rnn_jax.training.train import train


@pytest.fixture(scope="session")
def programs_folder(tmp_path_factory):
    return str(tmp_path_factory.mktemp("compiled"))


@pytest.fixture(scope="module", autouse=True)
def compile_once(programs_folder):
    """Lets equal runs share what they compile, which takes nearly all of their time."""
    settings = {
        "jax_compilation_cache_dir": programs_folder,
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}

    def use(values):
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    use(settings)
    yield
    use(before)


@pytest.fixture(scope="session")
def config(tmp_path_factory):
    """A run whose records, validations and checkpoints fall on different steps."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    arrays = {}
    for split, size in {"train": 40, "validation": 11, "test": 13}.items():
        arrays[split] = rng.integers(3, size=(size, 4, 4, 1), dtype=np.uint8)
        arrays[f"{split}_labels"] = rng.integers(2, size=size)
    np.savez(path, **arrays)
    sizes = {"layers": 1, "features": 2, "first_kernel": 3, "head_features": 4}
    intervals = {"log_every": 4, "eval_every": 5, "checkpoint_every": 2}
    return Config(
        model=ModelConfig("pixel_cnn", **sizes, scales=(2, 4), num_classes=2, dropout=0.2),
        data=DataConfig(name=str(path), levels=3),
        optimizer=OptimizerConfig("rmsprop", 0.01, "constant", weight_decay=0),
        train=TrainConfig(steps=6, batch_size=8, eval_batch_size=8, **intervals),
        seed=3,
    )


@pytest.fixture(scope="session")
def trained_run(config, tmp_path_factory):
    """The workdir of a run that nothing disturbed, and its result; copy it to change it."""
    workdir = tmp_path_factory.mktemp("trained")
    return workdir, train(config, workdir)
