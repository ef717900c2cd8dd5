"""Workdirs: one training at a time, the rule by which a run is resumed, and trained runs."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import bundled, terminal
from pixel_rnn_jax.config import Config, changed_fields, from_config_dict
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.files import check_storage, naming, open_lock
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runtime import devices, processes
from pixel_rnn_jax.workdirs import export
from pixel_rnn_jax.workdirs.checkpoints import Checkpoints, check_size
from pixel_rnn_jax.workdirs.identity import RunIdentity, sha256_of_json

PyTree = Any


@contextlib.contextmanager
def lock(workdir: epath.PathLike) -> Iterator[None]:
    """Keeps other trainings out of a workdir, which is created if it is not there.

    The kernel releases the lock when the process ends, however it ends. The first process takes it
    for all. A bucket has no locks.
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
            raise UserError(
                f"--workdir={workdir} is in use by {file.read()}: wait for it, or use another"
            ) from None
        file.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S %z")
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {since}")
        file.flush()
        yield


def resumed(checkpoints: Checkpoints, new: RunIdentity) -> RunIdentity:
    """Returns the identity to train on with, once the resume rule holds.

    The architecture, the seed and the format of the images must be as in the newest checkpoint,
    if there is one, and so must the images, if the config names the same ones. Everything else may
    change, and the log says what does.
    """
    step = checkpoints.latest_step()
    if step is None:
        return dataclasses.replace(new, origin=sha256_of_json(dataclasses.asdict(new)))
    old = checkpoints.identity(step)
    changes = changed_fields(old.config, new.config)
    for name, (before, after) in changes.items():
        if _is_fixed(name):
            raise UserError(
                f"{checkpoints.directory.parent} holds a run of {name}={before!r}, not {after!r}: "
                "use another --workdir"
            )
    # Which checkpoint is best depends on the validation images.
    same_images = old.image_format.same_images(new.image_format)
    same_images &= old.data["validation"] == new.data["validation"]
    same_fields = not any(name.startswith("data.") for name in changes)
    if not same_images or (same_fields and old.data != new.data):
        raise UserError(
            f"data.name={new.config.data.name} holds other images than those that "
            f"{checkpoints.directory.parent} was trained on ({old.image_format}): restore them, or "
            "use another --workdir"
        )
    for name, (before, after) in changes.items():
        terminal.log(f"{name} changes after step {step}: {before!r} → {after!r}")
    # The parameters were trained with the mean and the std that they began with.
    return dataclasses.replace(new, image_format=old.image_format, origin=old.origin)


def _is_fixed(name: str) -> bool:
    """Whether a field determines what a run computes: its architecture and its seed."""
    how = ("model.remat", "model.images_per_lane", "model.dropout")
    return name == "seed" or (name.startswith("model.") and name not in how)


def read_config(workdir: epath.PathLike) -> Config:
    """Reads `workdir`/config.json; raises `UserError` if there is none."""
    check_storage(workdir)
    path = epath.Path(workdir) / "config.json"
    if not path.exists():
        names = ", ".join(bundled.names())
        raise UserError(f"{workdir} has no run: --config=NAME begins one; bundled models: {names}")
    with naming(path):
        return from_config_dict(json.loads(path.read_text()))


@dataclass(frozen=True)
class Run:
    """A trained run."""

    identity: RunIdentity
    model: PixelRNN
    step: int  # Training steps behind the parameters.
    params: PyTree  # Replicated over a mesh.


def moved(run: Run, name: str | None, data_dir: str | None) -> Run:
    """Returns a run whose images have now another `data.name` or `data.data_dir`, if not None."""
    fields: dict[str, Any] = {"name": name, "data_dir": data_dir}
    fields = {field: value for field, value in fields.items() if value is not None}
    config = run.identity.config
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, **fields))
    return dataclasses.replace(run, identity=dataclasses.replace(run.identity, config=config))


def open_run(workdir: epath.PathLike, mesh: Mesh) -> Run:
    """Opens the trained model of a workdir, which may still be training, or of the package.

    The parameters, or their moving average if there is one, come from the checkpoint with the best
    validation, or from the newest one without any.
    """
    check_storage(workdir)
    if Path(workdir).parent == bundled.FOLDER:
        return _open_bundled(Path(workdir), mesh)
    copy = read_config(workdir)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        identities = {step: checkpoints.identity(step) for step in checkpoints.steps()}
        if len({identity.origin for identity in identities.values()}) != 1:
            kind = "checkpoints of several runs" if identities else "no checkpoint"
            raise UserError(f"--workdir={workdir} has {kind}")
        # The newest identity says where the data are now.
        identity, step = identities[max(identities)], checkpoints.best_step() or max(identities)
        for name, (stored, written) in changed_fields(identity.config, copy).items():
            if _is_fixed(name):  # No resume can have changed it.
                raise UserError(
                    f"{workdir}/config.json has {name}={written!r}, but the run was trained with "
                    f"{stored!r}: the file was edited, or the checkpoints are of another run"
                )
        with naming(workdir):
            check_size(identity.config.model, identity.image_format, checkpoints.types(step))
        model = identity.image_format.model(identity.config.model)
        entry = "ema" if identities[step].config.optimizer.ema_decay else "params"
        init = jax.jit(model.init, out_shardings=devices.replicated(mesh))
        template = {entry: jax.eval_shape(init, jax.random.key(0))}
        return Run(identity, model, step, checkpoints.restore(template, step)[entry])


def _open_bundled(folder: Path, mesh: Mesh) -> Run:
    """Opens a model of the package, which has an exported file instead of checkpoints."""
    model, params, _ = export.read(folder / bundled.FILE)
    identity = RunIdentity.from_dict(json.loads((folder / "identity.json").read_bytes()))
    step = json.loads((folder / "result.json").read_bytes())["step"]
    return Run(identity, model, step, jax.device_put(params, devices.replicated(mesh)))
