"""The program as tests start it."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MAIN = [sys.executable, "-m", "pixel_rnn_jax.main"]
ORBAX = "ignore:jax.sharding.SingleDeviceSharding is deprecated"  # As in pyproject.toml.
STRICT = ["-W", "error", "-W", ORBAX]
"""Options of a Python program in which a warning is an error."""
SMALL = {
    "model.architecture": "pixel_cnn",
    "model.layers": 1,
    "model.features": 4,
    "model.head_features": 8,
    "optimizer.schedule": "constant",
    "train.log_every": 5,
}
"""Fields of a config."""


def train_words(workdir: Path | str, **settings: object) -> list[str]:
    """Returns the command and flags of a small run; `train__steps=5` sets the field train.steps."""
    values = SMALL | {name.replace("__", "."): value for name, value in settings.items()}
    flags = [f"--config.{name}={value}" for name, value in values.items()]
    return ["train", f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}", *flags]


def environment(variables: Mapping[str, str] = {}, *, devices: int = 1) -> dict[str, str]:
    """Returns the environment of a program on CPU devices, free of what the tests were given.

    The programs compile more than they compute, and do so in half the time this way.
    """
    without = "PYTHON|XLA_FLAGS|NPROC|(SLURM|OMPI|KUBERNETES|TPU)_.*"
    clean = {name: value for name, value in os.environ.items() if not re.fullmatch(without, name)}
    own = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices), "PYTHONPATH": str(ROOT)}
    return {**clean, **own, "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", **variables}


def run(
    *words: str | Path, status: int = 0, env: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    """Runs a command in the root of the repository, and checks its exit status."""
    result = subprocess.run(
        words, cwd=ROOT, env=env or environment(), capture_output=True, text=True, timeout=120
    )
    assert result.returncode == status, result.stdout + result.stderr
    return result
