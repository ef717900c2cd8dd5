"""What a finished run has reached, for other programs: `result.json` and TensorBoard."""

import contextlib
import importlib.metadata
import json
import math
import platform
import time
from typing import Any

from etils import epath

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.records import CannotGoOn, MetricsWriter, read_records
from pixel_rnn_jax.runtime import devices, processes, storage
from pixel_rnn_jax.training.evaluate import Evaluation

PACKAGES = "pixel-rnn-jax", "jax", "jaxlib", "flax", "optax", "numpy"


def write_result(
    workdir: epath.PathLike,
    test: Evaluation,
    baseline: Evaluation,
    *,
    steps: int,
    resumed_from: int,
    seconds: float,
    used: int,
) -> None:
    """Writes `workdir`/result.json and the same to TensorBoard, in the first process.

    Args:
        workdir: The folder of the run.
        test: The evaluation of the best parameters on the test split.
        baseline: That of independent pixels on the same images.
        steps: Steps that the run has made.
        resumed_from: Steps that it had made before this command.
        seconds: How long this command has taken.
        used: Number of devices that share a batch.

    The file of a run that was complete keeps what it says of the training: the last three, the rest
    of the hardware, the versions and when it was finished.

    Raises:
        UserError: The workdir cannot be written to.
    """
    if not processes.first():
        return
    result = {
        "step": test.step,
        "test": _values(test),
        "validation": _validation(workdir, test.step),
        "independent_pixels": {**_values(baseline), "training_images": baseline.counted},
        "steps": steps,
        "resumed_from": resumed_from,
        "seconds": round(seconds, 1),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "hardware": devices.hardware(used),
    }
    path, again = epath.Path(workdir) / "result.json", False
    of_training = "resumed_from", "seconds", "finished", "versions", "hardware"
    if steps == resumed_from:  # The time of the training is that of an earlier command.
        with contextlib.suppress(*storage.errors(), *storage.DAMAGED_JSON):
            before = json.loads(path.read_bytes())
            if before["steps"] == steps:
                again = before["test"] == result["test"]
                result |= {name: before[name] for name in of_training}
    content = json.dumps(result, indent=2, allow_nan=False) + "\n"
    with storage.writing(workdir):
        storage.write_atomically(path, content.encode())
    if not again:
        _show(workdir, steps, {"test": test, "independent_pixels": baseline}, content)


def _show(workdir: epath.PathLike, step: int, splits: dict[str, Evaluation], content: str) -> None:
    """Writes a result to TensorBoard."""
    numbers = {
        f"{name}/{unit}": value
        for name, found in splits.items()
        for unit, value in _values(found).items()
    }
    try:
        with MetricsWriter(workdir, step) as writer:
            writer.show(step, numbers, {"result": content})
            writer.flush()
    except CannotGoOn as error:
        raise UserError(str(error)) from error


def _version(package: str) -> str | None:
    """Returns the version of a package; None for this one where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _values(found: Evaluation) -> dict[str, Any]:
    """Returns the numbers of an evaluation that are finite."""
    values = {"nats": found.nats, "standard_error": found.standard_error}
    if not found.real:
        values["bits_per_dim"] = found.bits_per_dim
    return {
        **{name: value for name, value in values.items() if math.isfinite(value)},
        "images": found.images,
    }


def _validation(workdir: epath.PathLike, step: int | None) -> dict[str, float]:
    """Returns what was recorded of the validation that chose a step."""
    prefix = "validation/"
    records = []
    with contextlib.suppress(UserError, *storage.errors()):  # Which has been said.
        records = read_records(workdir)
    return {
        name.removeprefix(prefix): value
        for record in records
        if record["step"] == step
        for name, value in record.items()
        if name.startswith(prefix)
    }
