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

from pixel_rnn_jax.runs.config import Config
from pixel_rnn_jax.runs.source import open_run
from pixel_rnn_jax.system import devices
from pixel_rnn_jax.training.evaluate import score
from pixel_rnn_jax.training.log import read_metrics


def changed(config: Config, group: str, **fields: Any) -> Config:
    """Returns a config with other values in one group."""
    return replace(config, **{group: replace(getattr(config, group), **fields)})


def with_field(config: Config, name: str, value: Any) -> Config:
    """Returns a config with another value in the field that has this dotted name."""
    group, _, field = name.rpartition(".")
    return changed(config, group, **{field: value}) if group else replace(config, **{field: value})


def evaluated(workdir: Path, split: str = "test") -> dict[str, float]:
    """Returns the figures of the trained model of a workdir on a split of its data."""
    run = open_run(workdir, devices.make_mesh())
    assert run.identity
    model, size = run.image_model, run.identity.config.train.eval_batch_size
    images = run.read_split(split)
    return score(model.pixel_rnn, model.params, images, batch_size=size).numbers()


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
    outcomes = outcome(one), outcome(other)
    names = outcomes[0].keys() | outcomes[1].keys()
    return {name for name in names if outcomes[0].get(name) != outcomes[1].get(name)}


def records_of(workdir: Path) -> list[dict[str, float]]:
    """Returns the records without what the clock says, which no two runs share."""
    return [{k: v for k, v in record.items() if k != "seconds"} for record in read_metrics(workdir)]


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
        state: dict[str, Any] = checkpointer.restore(workdir / "checkpoints" / str(step) / "state")
    return {name: np.asarray(array) for name, array in state.items()}
