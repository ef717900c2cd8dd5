"""Changed configs, and what a training run leaves in its workdir, for tests that compare runs."""

import contextlib
import resource
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from pixel_rnn_jax.runs.records import read_records
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training.evaluate import Evaluation, measure, open_split


def changed(config: Config, group: str, **fields: Any) -> Config:
    """Returns a config with other values in one group."""
    return replace(config, **{group: replace(getattr(config, group), **fields)})


def two_steps(images: Path) -> Config:
    """Returns the config of two steps of a tiny PixelCNN on images of three levels."""
    return Config(
        model=ModelConfig("pixel_cnn", layers=1, features=2, first_kernel=3, head_features=3),
        data=DataConfig(name=str(images), levels=3),
        train=TrainConfig(steps=2, batch_size=8),
    )


def evaluated(workdir: Path, split: str = "test") -> Evaluation:
    """Returns the evaluation of the trained model of a workdir on a split."""
    mesh = devices.make_mesh()
    run = open_run(workdir, mesh)
    source, size = open_split(run, split), run.config.train.eval_batch_size
    return measure(run.model, run.params, source, size, mesh, step=run.step)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Lets no file grow beyond `size` bytes: a write fails half-way, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def outcome(workdir: Path) -> dict[str, Any]:
    """Returns all that a run leaves, but for its times: two equal ones are equal bit for bit."""
    steps = saved_steps(workdir)
    pictures = {path.name: path.read_bytes() for path in (workdir / "pictures").glob("*")}
    arrays = bits_of(workdir, max(steps))
    return {"records": records_of(workdir), "steps": steps, "pictures": pictures, **arrays}


def differences(one: Path, other: Path) -> set[str]:
    """Returns in what two outcomes differ."""
    found, expected = outcome(one), outcome(other)
    names = found.keys() | expected.keys()
    return {name for name in names if found.get(name) != expected.get(name)}


def records_of(workdir: Path) -> list[dict[str, float]]:
    """Returns the records without what the clock says, which no two runs share."""
    times = "train/images_per_second", "seconds"
    return [{k: v for k, v in record.items() if k not in times} for record in read_records(workdir)]


def saved_steps(workdir: Path) -> set[int]:
    folder = workdir / "checkpoints"
    return {int(p.name) for p in folder.iterdir() if p.name.isdigit()} if folder.exists() else set()


def bits_of(workdir: Path, step: int) -> dict[str, Any]:
    """Returns every array of a checkpoint in a form that is equal only bit for bit."""
    state = state_of(workdir, step)
    return {name: (array.dtype, array.shape, array.tobytes()) for name, array in state.items()}


def state_of(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Reads a checkpoint as Orbax has it: the arrays by their paths, "params/scale_0/..."."""
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided", UserWarning)
        found: dict[str, Any] = checkpointer.restore(workdir / "checkpoints" / str(step) / "state")
    return {name: np.asarray(array) for name, array in found.items()}
