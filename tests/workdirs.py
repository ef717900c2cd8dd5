"""Changed configs, and what a training run leaves in its workdir, for tests that compare runs."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orbax.checkpoint as ocp

from pixel_rnn_jax.config import Config
from pixel_rnn_jax.runs.records import read_records


def changed(config: Config, group: str, **fields: Any) -> Config:
    """Returns a config with other values in one group."""
    return replace(config, **{group: replace(getattr(config, group), **fields)})


class Outcome(NamedTuple):
    """All that does not depend on the clock; two equal ones are equal bit for bit."""

    records: list[dict[str, float]]
    steps: set[int]
    state: dict[str, tuple[str, bytes]]
    pictures: dict[str, bytes]


def outcome(workdir: Path) -> Outcome:
    steps = saved_steps(workdir)
    state = {name: (str(x.dtype), x.tobytes()) for name, x in state_of(workdir, max(steps)).items()}
    pictures = {path.name: path.read_bytes() for path in (workdir / "pictures").glob("*")}
    return Outcome(records_of(workdir), steps, state, pictures)


def records_of(workdir: Path) -> list[dict[str, float]]:
    """Returns the records without the speed."""
    speed = "train/images_per_second"
    return [{k: v for k, v in record.items() if k != speed} for record in read_records(workdir)]


def saved_steps(workdir: Path) -> set[int]:
    folder = workdir / "checkpoints"
    return {int(p.name) for p in folder.iterdir() if p.name.isdigit()} if folder.exists() else set()


def state_of(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """Reads a checkpoint as Orbax has it: the arrays by their paths, "params/scale_0/..."."""
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided", UserWarning)
        found: dict[str, Any] = checkpointer.restore(workdir / "checkpoints" / str(step) / "state")
    return {name: np.asarray(array) for name, array in found.items()}


def differences(one: Path, other: Path) -> list[str]:
    """Returns what differs between two finished runs, bit for bit."""
    found, expected = outcome(one), outcome(other)
    return [
        *(
            kind
            for kind in ("records", "pictures")
            if getattr(found, kind) != getattr(expected, kind)
        ),
        *(
            name
            for name in found.state.keys() | expected.state.keys()
            if found.state.get(name) != expected.state.get(name)
        ),
    ]
