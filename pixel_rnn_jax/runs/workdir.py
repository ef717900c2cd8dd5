"""The workdir of a run: its lock, its checkpoints by Orbax, and the rule by which it is resumed.

A checkpoint has the arrays by their paths, such as "params/scale_0/first/kernel", and one JSON of
the step, the `RunIdentity`, the validation, and the SHA-256s of the arrays and of itself.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import operator
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from pixel_rnn_jax.data import ImageFormat
from pixel_rnn_jax.runs.config import Config, changed_fields, from_config_dict
from pixel_rnn_jax.system import processes, terminal
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import bundled_names, check_storage, error_context, open_lock
from pixel_rnn_jax.system.trees import PyTree, by_name, check_same_types, sha256, types_of

policies = ocp.checkpoint_managers


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint belongs to; `origin` is the SHA-256 of the identity that began the run."""

    config: Config
    image_format: ImageFormat
    data: dict[str, str]  # The digest of each split, by "train", "validation" and "test".
    origin: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunIdentity":
        """Returns the identity whose `dataclasses.asdict` went through JSON."""
        image_format = ImageFormat.from_dict(values["image_format"])
        config = from_config_dict(values["config"])
        return cls(config, image_format, values["data"], values["origin"])


class Progress(NamedTuple):
    """The seconds that a run has trained, and the number of its records."""

    seconds: float = 0.0
    records: int = 0


def sha256_of_json(values: Any) -> str:
    """Returns the SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


class Checkpoints:
    """The checkpoints of a workdir: the newest two, and the one with the best validation.

    All processes call every method together, with the whole state in each. If a save fails in the
    background, the next call raises Orbax's error; earlier checkpoints are intact.
    """

    def __init__(self, workdir: epath.PathLike, *, read_only: bool = False):
        """Opens the checkpoints, and unless `read_only` deletes what a kill left half-written."""
        path = epath.Path(workdir)  # Orbax takes absolute paths; a bucket's is absolute.
        self.directory = (path if "://" in str(path) else path.resolve()) / "checkpoints"
        nats = operator.itemgetter("nats")
        best = policies.BestN(
            get_metric_fn=nats, reverse=True, n=1, keep_checkpoints_without_metrics=False
        )
        options = ocp.CheckpointManagerOptions(
            # Orbax's own `read_only` warns of itself.
            create=not read_only,
            cleanup_tmp_directories=not read_only,
            best_fn=nats,
            best_mode="min",
            preservation_policy=policies.AnyPreservationPolicy([policies.LatestN(2), best]),
        )
        with error_context(self.directory):
            self._manager = ocp.CheckpointManager(self.directory, options=options)

    def steps(self) -> list[int]:
        """Returns the steps that have a checkpoint."""
        self.wait()
        return sorted(self._manager.all_steps())

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None."""
        return max(self.steps(), default=None)

    def best_step(self) -> int | None:
        """Returns the step with the lowest validation nats, or None if none was validated."""
        self.wait()
        return self._manager.best_step()

    def save(
        self,
        step: int,
        state: PyTree,
        identity: RunIdentity,
        nats: float | None = None,
        progress: tuple[float, int] = (0.0, 0),
    ) -> None:
        """Copies a state, a dict of trees of arrays, and writes it in the background.

        `nats` is the mean of a validation at this step, if there was one.
        """
        arrays, metrics = by_name(state), None if nats is None else {"nats": nats}
        host = jax.device_get(arrays)
        values = {
            "step": step,
            "progress": progress,
            "identity": dataclasses.asdict(identity),
            "metrics": metrics,
            "types": types_of(host),
            "sha256s": {name: sha256({name: array}) for name, array in host.items()},
        }
        sealed = values | {"sha256": sha256_of_json(values)}
        items = {"state": ocp.args.PyTreeSave(arrays), "identity": ocp.args.JsonSave(sealed)}
        self._manager.save(step, args=ocp.args.Composite(**items), metrics=metrics, force=True)

    def identity(self, step: int) -> RunIdentity:
        """Returns the identity of a checkpoint; raises `UserError` if it is damaged."""
        return RunIdentity.from_dict(self.sealed(step)["identity"])

    def restore(self, template: PyTree, step: int) -> PyTree:
        """Reads the arrays of a checkpoint, bit for bit, and checks them against their SHA-256s.

        `template` has the entries to read, as trees of `jax.ShapeDtypeStruct` with shardings.
        """
        self.wait()
        path, leaves = self.directory / str(step), by_name(template)
        sealed = self.sealed(step)
        types = {n: t for n, t in sealed["types"].items() if n.split("/")[0] in template}
        check_same_types(f"checkpoint {path}", types_of(leaves), types)
        # As NumPy arrays, whose bytes are compared before they reach a device.
        as_numpy = dict.fromkeys(leaves, ocp.RestoreArgs(restore_type=np.ndarray))
        args = ocp.args.PyTreeRestore(
            dict.fromkeys(leaves, 0), restore_args=as_numpy, partial_restore=True
        )
        with self._context(step):
            arrays = self._manager.restore(step, args=ocp.args.Composite(state=args))["state"]
            for name in leaves:
                if sha256({name: arrays[name]}) != sealed["sha256s"][name]:
                    raise UserError(f"its {name} has another SHA-256")
        placed = [jax.device_put(arrays[name], leaf.sharding) for name, leaf in leaves.items()]
        return jax.tree.unflatten(jax.tree.structure(template), placed)

    def wait(self) -> None:
        """Waits for the save in the background; raises its error if it has failed."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, then frees what Orbax holds."""
        self._manager.close()

    def _context(self, step: int) -> contextlib.AbstractContextManager[None]:
        path = self.directory / str(step)
        return error_context(f"{path} (delete it if there are other checkpoints)")

    def sealed(self, step: int) -> dict[str, Any]:
        """Returns the JSON of a checkpoint; raises `UserError` if it is damaged."""
        args = ocp.args.Composite(identity=ocp.args.JsonRestore())
        with self._context(step):
            values = dict(self._manager.restore(step, args=args)["identity"])
            intact = values.pop("sha256", None) == sha256_of_json(values)
            found = values["step"], values["metrics"]
            if not intact or found != (step, self._manager.metrics(step)):
                raise UserError("it does not match its SHA-256, its step or its metrics")
        return values


@contextlib.contextmanager
def lock(workdir: epath.PathLike) -> Iterator[None]:
    """Keeps other trainings out of a workdir, which is created, until the process ends.

    The first process takes the lock for all. A bucket has no locks.
    """
    if "://" in os.fspath(workdir) or not processes.is_first():
        yield
        return
    path = Path(workdir) / "lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            user = f"{file.read()}: wait for it, or use another"
            raise UserError(f"--workdir={workdir} is in use by {user}") from None
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}")
        file.flush()
        yield


def check_resume(checkpoints: Checkpoints, new: RunIdentity) -> RunIdentity:
    """Returns the identity to train on with, once it fits the newest checkpoint, if there is one.

    The fixed fields, the format and the validation images must be equal, and all images unless a
    `data` field changed. The log says what else changes.
    """
    step = checkpoints.latest_step()
    if step is None:
        return dataclasses.replace(new, origin=sha256_of_json(dataclasses.asdict(new)))
    old = checkpoints.identity(step)
    changes = changed_fields(old.config, new.config)
    workdir = checkpoints.directory.parent
    for name, (before, after) in changes.items():
        if is_fixed(name):
            run = f"{workdir} holds a run of {name}={before!r}"
            raise UserError(f"{run}, not {after!r}: use another --workdir")
    # Which checkpoint is best depends on the validation images.
    same_images = old.image_format == new.image_format
    same_images &= old.data["validation"] == new.data["validation"]
    same_fields = not any(name.startswith("data.") for name in changes)
    if not same_images or (same_fields and old.data != new.data):
        what = f"data.name={new.config.data.name} does not hold the images of {workdir}"
        raise UserError(f"{what} ({old.image_format}): restore them, or use another --workdir")
    for name, (before, after) in changes.items():
        terminal.log(f"{name} changes after step {step}: {before!r} → {after!r}")
    # The parameters were trained with the mean and the std that they began with.
    return dataclasses.replace(new, image_format=old.image_format, origin=old.origin)


def is_fixed(name: str) -> bool:
    """Whether a field determines what a run computes: its architecture and its seed."""
    free = ("model.remat", "model.images_per_lane", "model.dropout")
    return name == "seed" or (name.startswith("model.") and name not in free)


def read_config(workdir: epath.PathLike) -> Config:
    """Reads `workdir`/config.json; raises `UserError` if there is none."""
    check_storage(workdir)
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        names = ", ".join(bundled_names())
        raise UserError(f"{workdir} has no run: --config=NAME begins one; bundled models: {names}")
    with error_context(path):
        return from_config_dict(json.loads(path.read_text()))
