"""A tiny run of two scales and two classes, and what makes many such runs cheap."""

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from workdirs import saved_steps

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, OptimizerConfig, TrainConfig
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.training.train import TrainResult, train


@pytest.fixture(scope="module", autouse=True)
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Lets equal runs share what they compile, which takes nearly all of their time."""
    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}

    def use(values: dict[str, Any]) -> None:
        for name, value in values.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()

    use(settings)
    yield
    use(before)


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """A run whose records, validations and checkpoints fall on different steps."""
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
        optimizer=OptimizerConfig(learning_rate=0.01),
        train=TrainConfig(
            steps=6,
            batch_size=8,
            eval_batch_size=8,
            log_every=4,
            eval_every=5,
            checkpoint_every=2,
        ),
        seed=3,
    )


@pytest.fixture(scope="module")
def straight(config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A run that nothing disturbed."""
    workdir = tmp_path_factory.mktemp("straight")
    return workdir, train(config, workdir)


@pytest.fixture
def at_batch(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Callable[[], Any]], None]:
    """Lets a function be called when training asks for the batch of a step."""
    train_batches = data.train_batches

    def at(step: int, do: Callable[[], Any]) -> None:
        def batches(*args: Any, start_step: int, **kwargs: Any) -> Iterator[Batch]:
            stream = train_batches(*args, start_step=start_step, **kwargs)
            for number, batch in enumerate(stream, start=start_step + 1):
                if number == step:
                    do()
                yield batch

        monkeypatch.setattr(data, "train_batches", batches)

    return at


@pytest.fixture
def stop_at(at_batch: Callable[..., None]) -> Callable[[int, Config, Path], None]:
    """Stops a run after a step, by a signal during it."""

    def stop(step: int, config: Config, workdir: Path) -> None:
        at_batch(step, lambda: signal.raise_signal(signal.SIGTERM))
        with pytest.raises(SystemExit) as stopped:
            train(config, workdir)
        assert stopped.value.code == 143
        assert max(saved_steps(workdir)) == step

    return stop
