"""What a workdir holds."""

import contextlib, dataclasses, json, time
from dataclasses import dataclass
from typing import Any
import jax
from etils import epath
from pixel_rnn_jax.config import Config, from_json, leaves, to_json
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runtime import devices, processes, storage

PyTree = Any

RESUMABLE = frozenset(
    {
        "model.remat",
        "model.pack",
        "data.data_dir",
        "data.test_split",
        "train.steps",
        "train.micro_batches",
        "train.eval_batch_size",
        "train.log_every",
        "train.eval_every",
        "train.checkpoint_every",
    }
)
"""The fields that may change when a run is resumed in its workdir.

They are those that leave the remaining course of training as it was: where things lie, how often
to look, how the same function is computed, and how long to go on. There is one exception,
`train.steps` under the "cosine" schedule or with `train.in_turn`, which spread the learning rate or
the scales over exactly that many steps. Every other field is fixed by the first run,
`data.validation_split` included, since validations on other images would not compare.
"""


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns {dotted field: (old value, new value)} for the fields in which two configs differ."""
    new_values = dict(leaves(new))
    return {
        name: (value, new_values[name]) for name, value in leaves(old) if value != new_values[name]
    }


def check_resumable(old: Config, new: Config) -> None:
    """Checks that a run which was started with `old` may go on with `new` (see RESUMABLE).

    Raises:
        UserError: A field has changed that may not; names each, with both values.
    """
    changed = changed_fields(old, new)
    refused = changed.keys() - RESUMABLE
    if "cosine" in (old.optimizer.schedule, new.optimizer.schedule) or old.train.in_turn:
        refused |= changed.keys() & {"train.steps"}
    if refused:
        changes = ", ".join(
            f"{name} from {changed[name][0]!r} to {changed[name][1]!r}" for name in sorted(refused)
        )
        note = (
            ' (the "cosine" schedule, or the turns of the scales, are spread over train.steps)'
            if "train.steps" in refused
            else ""
        )
        raise UserError(
            f"this workdir holds a run that cannot go on with another config{note}: use another "
            f"--workdir, or do not change {changes}"
        )


def write_config(config: Config, workdir: epath.PathLike) -> None:
    """Writes `workdir`/config.json in one piece: a reader finds the whole file or none."""
    _write_whole(epath.Path(workdir) / "config.json", to_json(config))


def read_config(workdir: epath.PathLike) -> Config:
    """Reads `workdir`/config.json.

    Raises:
        UserError: There is no such file, or it is damaged or not a config; names the file. The
            bucket that it is in cannot be used.
    """
    storage.check(workdir)
    path = epath.Path(workdir) / "config.json"
    content = _content(path, "training run")
    try:
        return from_json(content.decode())
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a config that this version can read: {error}") from error


@dataclass(frozen=True)
class ImageFormat:
    """What the data set decides about a model.

    Attributes:
        image_shape: (H, W, C).
        levels: K.
    """

    image_shape: tuple[int, int, int]
    levels: int

    def __str__(self) -> str:
        return f"shape {self.image_shape} and {self.levels} levels"


def write_image_format(images: ImageFormat, workdir: epath.PathLike) -> None:
    """Writes `workdir`/images.json in one piece.

    Raises:
        UserError: It is there already and says something else: the data set has changed.
    """
    path = epath.Path(workdir) / "images.json"
    if path.exists():
        before = read_image_format(workdir)
        if before != images:
            raise UserError(
                f"{path.parent} was trained on images of {before}, the data set now has {images}: "
                "use another --workdir"
            )
    _write_whole(path, json.dumps(dataclasses.asdict(images)) + "\n")


def read_image_format(workdir: epath.PathLike) -> ImageFormat:
    """Reads `workdir`/images.json.

    Raises:
        UserError: There is no such file, or it is damaged; names the file.
    """
    path = epath.Path(workdir) / "images.json"
    content = _content(path, "trained model")
    try:
        values = json.loads(content)
        height, width, channels = map(int, values["image_shape"])
        return ImageFormat((height, width, channels), int(values["levels"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): restore it, or train again") from error


def _content(path: epath.Path, missing: str) -> bytes:
    """Reads a file of a workdir, without which there is no such thing as `missing` says in it."""
    try:
        if path.exists():
            return path.read_bytes()
    except storage.errors() as error:
        raise UserError(f"{path} cannot be read: {storage.reason(error)}") from error
    raise UserError(f"{path.parent} holds no {missing}: there is no {path.name} in it")


def _write_whole(path: epath.Path, text: str) -> None:
    """Writes a file of which a reader finds the whole or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f"{path.name}.unfinished"
    unfinished.write_text(text)
    unfinished.replace(path)


@dataclass(frozen=True)
class Run:
    config: Config
    images: ImageFormat
    model: PixelRNN
    step: int
    params: PyTree


def open_run(workdir, mesh):
    processes.check()
    config, images = read_config(workdir), read_image_format(workdir)
    model = PixelRNN(config.model, images.image_shape, images.levels)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        step, params = best_parameters(checkpoints, config, model, mesh)
    return Run(config, images, model, step, params)


def best_parameters(checkpoints, config, model, mesh):
    step = checkpoints.best_step()
    if step is None:
        step = checkpoints.latest_step()
    if step is None:
        raise UserError("there is no checkpoint in the workdir yet: train for longer")
    name = "ema" if config.optimizer.average else "params"
    template = devices.replicated_shapes(lambda: model.init(jax.random.key(0)), mesh)
    return step, checkpoints.restore({name: template}, step)[name]


def check_usable(workdir, config):
    if (workdir / "config.json").exists():
        check_resumable(read_config(workdir), config)
        return
    for name in ("checkpoints", "metrics.jsonl"):
        if (workdir / name).exists():
            raise UserError(
                f"{workdir} has {name} but no config.json, so what it holds is not known: use "
                "another --workdir"
            )


def write(workdir, config, images):
    if processes.first():
        try:
            write_image_format(images, workdir)
            write_config(config, workdir)
        except storage.errors() as error:
            raise UserError(f"{workdir} cannot be written to: {storage.reason(error)}") from error
    if not devices.all_equal(to_json(config)):
        raise UserError("the processes were given different configs or flags: give all the same")
    seen_by = time.monotonic() + processes.STORAGE_S
    while not (workdir / "config.json").exists() or read_config(workdir) != config:
        if time.monotonic() > seen_by:
            raise UserError(
                f"the first process has begun a run in {workdir}, which this process does not see: "
                "--workdir must be on storage that all processes share"
            )
        time.sleep(1)
