"""Workdirs: one training at a time, and the rule by which a run is resumed."""

import contextlib
import dataclasses
import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from etils import epath

from pixel_rnn_jax.runs.checkpoints import Checkpoints, RunIdentity, sha256_of_json
from pixel_rnn_jax.runs.config import Config, changed_fields, from_config_dict
from pixel_rnn_jax.system import processes, terminal
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import bundled_names, check_storage, error_context, open_lock


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


def check_resume(checkpoints: Checkpoints, new: RunIdentity) -> RunIdentity:
    """Returns the identity to train on with, once the resume rule holds.

    Must equal the newest checkpoint's, if there is one: the architecture, the seed, the format of
    the images and the validation images; all images unless a `data` field changed. Everything else
    may change, and the log says what does.
    """
    step = checkpoints.latest_step()
    if step is None:
        return dataclasses.replace(new, origin=sha256_of_json(dataclasses.asdict(new)))
    old = checkpoints.identity(step)
    changes = changed_fields(old.config, new.config)
    workdir = checkpoints.directory.parent
    for name, (before, after) in changes.items():
        if is_fixed(name):
            raise UserError(
                f"{workdir} holds a run of {name}={before!r}, not {after!r}: use another --workdir"
            )
    # Which checkpoint is best depends on the validation images.
    same_images = old.image_format == new.image_format
    same_images &= old.data["validation"] == new.data["validation"]
    same_fields = not any(name.startswith("data.") for name in changes)
    if not same_images or (same_fields and old.data != new.data):
        raise UserError(
            f"data.name={new.config.data.name} does not hold the images of {workdir} "
            f"({old.image_format}): restore them, or use another --workdir"
        )
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
