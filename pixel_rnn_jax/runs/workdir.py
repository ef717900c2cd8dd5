"""Workdirs: the config and image format of a run, and opening the trained model in one."""

import contextlib
import dataclasses
import json
import time
from dataclasses import dataclass
from typing import Any

import jax
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import bundled, terminal
from pixel_rnn_jax.config import Config, from_json, to_json
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs import export
from pixel_rnn_jax.runs.checkpoints import Checkpoints, Unreadable
from pixel_rnn_jax.runs.fingerprints import sha256_of_json
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.missing import missing
from pixel_rnn_jax.runs.records import picture_paths
from pixel_rnn_jax.runtime import devices, processes, storage

PyTree = Any


@dataclass(frozen=True)
class Run:
    """A trained run: its parameters after `step` training steps, replicated over a mesh."""

    config: Config
    image_format: ImageFormat
    model: PixelRNN
    step: int
    params: PyTree


def open_run(workdir: epath.PathLike, mesh: Mesh) -> Run:
    """Opens the trained model of a workdir, which may still be training, or of `bundled.FOLDER`.

    The parameters are those of the checkpoint with the best validation, or of the newest one if
    none has been validated: the moving average, or the parameters themselves without an average.

    Raises:
        UserError: There is no trained model, or a file of it is damaged or cannot be read.
    """
    processes.check()
    config = read_config(workdir)
    if epath.Path(workdir).parent == bundled.FOLDER:
        return _open_shipped(epath.Path(workdir), config, mesh)
    image_format = read_image_format(workdir)
    model = image_format.model(config.model)
    name = "ema" if config.optimizer.ema_decay else "params"
    init = jax.jit(model.init, out_shardings=devices.replicated(mesh))
    template = {name: jax.eval_shape(init, jax.random.key(0))}
    step, params = _restore_best(workdir, template)
    return Run(config, image_format, model, step, params[name])


def _open_shipped(folder: epath.Path, config: Config, mesh: Mesh) -> Run:
    """Opens a model of the package, which has no checkpoints."""
    model, params, names = export.read(folder / bundled.FILE)
    image_format = ImageFormat(model.image_shape, model.levels, model.offset, model.scale, names)
    step = json.loads((folder / "result.json").read_bytes())["step"]
    return Run(config, image_format, model, step, jax.device_put(params, devices.replicated(mesh)))


def _restore_best(workdir: epath.PathLike, template: PyTree) -> tuple[int, PyTree]:
    """Restores the best checkpoint; a training may replace it between a look and the next."""
    tried, failure = None, None
    while True:
        with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
            step = checkpoints.best_step()
            if step is None:
                step = checkpoints.latest_step()
            if step is None:
                raise UserError(f"there is no checkpoint in {workdir} yet: train for longer")
            if failure and step == tried:
                raise failure
            tried, failure, params = step, None, None
            try:
                params = checkpoints.restore(template, step)
            except Unreadable as error:
                failure = error
            if processes.all_equal("damaged" if failure else "whole") and not failure:
                for text in missing(workdir, checkpoints.validations()):
                    terminal.say(text)
                return step, params
        time.sleep(1)


def newest_step(workdir: epath.Path) -> int | None:
    """Returns the step of the newest checkpoint without reading it; None if there is none."""
    folder = workdir / "checkpoints"
    found = folder.iterdir() if folder.is_dir() else ()
    steps = [path for path in found if path.name.isdigit()]
    if "://" in str(workdir):  # A bucket renames nothing: Orbax marks what is complete.
        steps = [path for path in steps if (path / "commit_success.txt").exists()]
    return max((int(path.name) for path in steps), default=None)


def agree(workdir: epath.Path) -> None:
    """Waits until all processes see the same newest checkpoint, after which they go on alike.

    Raises:
        UserError: They never do.
    """
    # Seconds are counted, not measured, so that all processes compare equally often.
    for seconds in range(processes.STORAGE_S + 1):
        if seconds:
            time.sleep(1)
        if processes.all_equal(str(newest_step(workdir))):
            return
    raise UserError(
        f"the processes see different checkpoints in {workdir}: --workdir must be on storage that "
        "all of them share"
    )


def begin_run(workdir: epath.Path, config: Config, image_format: ImageFormat) -> ImageFormat:
    """Writes config.json and images.json, and makes sure that all processes see the same ones.

    Returns the image format of the run, which keeps the offset and the scale that it began with,
    unless nothing has been learnt with them yet.

    Raises:
        UserError: The workdir cannot be written to, or belongs to images of another format; or the
            processes do not share the workdir.
    """
    if processes.first():
        with storage.writing(workdir):
            if newest_step(workdir) is None:
                (workdir / "images.json").unlink(missing_ok=True)
                if (workdir / "config.json").exists():
                    _forget_attempt(workdir)
            write_image_format(image_format, workdir)
            write_config(config, workdir)
    processes.all_equal("written")  # None reads what an earlier attempt has left.
    seen_by = time.monotonic() + processes.STORAGE_S
    while not (workdir / "config.json").exists() or read_config(workdir) != config:
        if time.monotonic() > seen_by:
            raise UserError(
                f"the first process has begun a run in {workdir}, which this process does not see: "
                "--workdir must be on storage that all processes share"
            )
        time.sleep(1)
    return read_image_format(workdir)


def _forget_attempt(workdir: epath.Path) -> None:
    """Deletes the results of a run whose checkpoints are gone, but no file of anything else."""
    for name in ("result.json", "history.jsonl"):
        (workdir / name).unlink(missing_ok=True)
    for path, *_ in picture_paths(workdir):
        path.unlink(missing_ok=True)


def write_config(config: Config, workdir: epath.PathLike) -> None:
    """Writes `workdir`/config.json."""
    storage.write_atomically(epath.Path(workdir) / "config.json", to_json(config).encode())


def read_config(workdir: epath.PathLike) -> Config:
    """Reads `workdir`/config.json.

    Raises:
        UserError: The file does not exist, is damaged or is not a config; or the bucket of the
            workdir cannot be used.
    """
    storage.check(workdir)
    path = epath.Path(workdir) / "config.json"
    content = _read(path, "training run")
    try:
        return from_json(content.decode())
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a config that this version can read: {error}") from error


def write_image_format(image_format: ImageFormat, workdir: epath.PathLike) -> None:
    """Writes `workdir`/images.json; raises a `UserError` if it exists with another format.

    An offset, a scale and names that it has already stay: the parameters were trained with them.
    """
    path = epath.Path(workdir) / "images.json"
    if path.exists():
        before = read_image_format(workdir)
        if not before.same_images(image_format):
            raise UserError(
                f"{workdir} was trained on images of {before}, the data set now has {image_format}"
                ": use another --workdir"
            )
        image_format = dataclasses.replace(
            image_format,
            offset=before.offset or image_format.offset,
            scale=before.scale or image_format.scale,
            class_names=before.class_names or image_format.class_names,
        )
    values = json.loads(image_format.to_json())
    text = json.dumps(values | {"sha256": sha256_of_json(values)})
    storage.write_atomically(path, f"{text}\n".encode())


def read_image_format(workdir: epath.PathLike) -> ImageFormat:
    """Reads `workdir`/images.json; raises a `UserError` if it is missing or damaged."""
    path = epath.Path(workdir) / "images.json"
    content = _read(path, "trained model")
    try:
        values = json.loads(content)
        digest = values.pop("sha256", None)  # Earlier versions wrote none.
        if digest not in (None, sha256_of_json(values)):
            raise ValueError("it does not match its digest")
        return ImageFormat.from_json(json.dumps(values))
    except storage.DAMAGED_JSON as error:
        reason = storage.reason(error)
        raise UserError(f"{path} is damaged ({reason}): restore it, or train again") from error


def _read(path: epath.Path, contents: str) -> bytes:
    """Reads a file that every workdir with these contents has."""
    try:
        if path.exists():
            return path.read_bytes()
    except storage.errors() as error:
        raise UserError(f"{path} cannot be read: {storage.reason(error)}") from error
    raise UserError(f"{path.parent} holds no {contents}: there is no {path.name} in it")
