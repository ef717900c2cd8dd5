"""Training, from the config to the evaluated model, in a workdir where it can be resumed."""

import contextlib
import dataclasses
import functools
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import optax
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.config import Config, to_json
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs import lock, resume
from pixel_rnn_jax.runs import workdir as workdir_lib
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.missing import missing
from pixel_rnn_jax.runs.records import picture_path
from pixel_rnn_jax.runs.workdir import Run
from pixel_rnn_jax.runtime import devices, processes, storage
from pixel_rnn_jax.training import evaluate, minutes
from pixel_rnn_jax.training.evaluate import Evaluation
from pixel_rnn_jax.training.initial import check_initial
from pixel_rnn_jax.training.loop import Loop
from pixel_rnn_jax.training.result import write_result
from pixel_rnn_jax.training.turns import Turns

T = TypeVar("T")


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has reached: two evaluations on the test split, and the last pictures."""

    test: Evaluation
    baseline: Evaluation
    pictures: tuple[epath.Path, ...]


def train(
    config: Config, workdir: epath.PathLike, *, allow_change: Collection[str] = ()
) -> TrainResult:
    """Trains a PixelRNN by maximum likelihood in `workdir`, and evaluates it on the test split.

    A run that the workdir holds already is resumed from its last checkpoint. It ends with the
    parameters and the records that it would have without the interruption, bit for bit. If it is
    complete, it is only evaluated again. `result.json` in the workdir has what is returned.

    On SIGTERM, or a first Ctrl-C, the step in progress is finished and saved.

    Args:
        config: The whole description of the run.
        workdir: Where it is kept.
        allow_change: Fields in which a run that goes on may differ from the one that was started;
            `history.jsonl` records those that do.

    Raises:
        UserError: The workdir holds something else or cannot be written to; the data cannot be
            read; the loss or the gradient is not finite any more. Checkpoints are kept.
        SystemExit: After a signal, with status 128 + its number (143 for SIGTERM).
    """
    _check_workdir(workdir)
    config = minutes.of_run(config, workdir)
    begin, resumed_from = time.monotonic(), workdir_lib.newest_step(epath.Path(workdir)) or 0
    resume.check_usable(epath.Path(workdir), config, allow_change)
    train, validation, test = (
        data.open_source(config, split) for split in ("train", "validation", "test")
    )
    height, width, channels = train.image_shape
    values = f"{train.levels} levels" if train.levels else "real values"
    terminal.say(
        f"{len(train):,} training, {len(validation):,} validation, {len(test):,} test images of "
        f"{height}x{width}x{channels}, {values}"
    )

    def finish(best: Run, last: int) -> TrainResult:
        size, mesh = config.train.eval_batch_size, _mesh(config)
        found = evaluate.measure(best.model, best.params, test, size, mesh, step=best.step)
        baseline = evaluate.independent_pixels(train, test, size)
        seconds = time.monotonic() - begin
        write_result(
            workdir,
            found,
            baseline,
            steps=last,
            resumed_from=resumed_from,
            seconds=seconds,
            used=mesh.size,
        )
        paths = (picture_path(workdir, name, last) for name in ("samples", "completions"))
        return TrainResult(found, baseline, tuple(path for path in paths if path.exists()))

    return run(config, workdir, train, validation, test, then=finish, allow_change=allow_change)


def run(
    config: Config,
    workdir: epath.PathLike,
    train_source: Source,
    validation_source: Source,
    *others: Source,
    then: Callable[[Run, int], T],
    optimizer: optax.GradientTransformation | None = None,
    allow_change: Collection[str] = (),
    kept: bool = True,
) -> T:
    """Trains as `train` does, on sources that are open; `others` must only have the same format.

    Args:
        config: The whole description of the run, but for the sources.
        workdir: Where it is kept.
        train_source: The images to train on.
        validation_source: Those by which the best parameters are chosen.
        *others: Sources of the same images.
        then: What follows while the workdir is still kept from other trainings: it is given the
            trained run, with the best parameters, and the number of steps made.
        optimizer: The update rule, instead of `config.optimizer`'s.
        allow_change: As `train` takes it.
        kept: Whether the workdir stays: else no pictures are drawn.

    Returns:
        What `then` returns.
    """
    _check_workdir(workdir)
    workdir = epath.Path(workdir)
    workdir_lib.agree(workdir)
    config = minutes.of_run(config, workdir)
    images = _image_format(config, train_source, validation_source, *others)
    # What is impossible is refused before the workdir is touched.
    new, mesh = images.model(config.model), _mesh(config)

    @functools.cache
    def digests() -> resume.Digests:
        splits = {"train": train_source, "validation": validation_source}
        return {split: data.digest(source) for split, source in splits.items()}

    if workdir_lib.newest_step(workdir) is None:
        digests()
        if config.init_from:
            check_initial(config.init_from, new, partial=config.init_partial)
    if not processes.all_equal(to_json(config)):  # Before anything is written.
        raise UserError("the processes were given different configs or flags: give all the same")
    with lock.hold(workdir) as check_held, contextlib.ExitStack() as stack:
        changes = resume.check_usable(workdir, config, allow_change, digests)
        begun = workdir_lib.newest_step(workdir)
        if processes.first() and changes:
            resume.record_changes(workdir, begun or 0, changes)
        if processes.first() and (begun is None or "data.train_split" in changes):
            resume.write_digests(workdir, digests())
        checked = None
        if begun is None:
            checked = stack.enter_context(data.checking(train_source, validation_source, *others))
            if config.train.minutes:  # Reading would slow the steps that are timed.
                checked.result()
            config = minutes.timed(config, new, mesh, train_source, optimizer)
        else:  # Where the parameters came from stays on record.
            old = workdir_lib.read_config(workdir)
            if config.init_from not in ("", old.init_from):
                terminal.say(f"init_from is left out: {workdir} has a run, which goes on")
            config = dataclasses.replace(
                config, init_from=old.init_from, init_partial=old.init_partial
            )
        model = workdir_lib.begin_run(workdir, config, images).model(config.model)
        with contextlib.closing(Checkpoints(workdir)) as checkpoints:
            for text in missing(workdir, checkpoints.validations()):
                terminal.say(text)
            turns = Turns(config, model, mesh, optimizer)
            loop = Loop(config, workdir, model, mesh, checkpoints, check_held, kept)
            step = loop.run(turns, train_source, validation_source, checked)
        return then(workdir_lib.open_run(workdir, mesh), step)


def _check_workdir(workdir: epath.PathLike) -> None:
    processes.check()
    storage.check(workdir)


def _mesh(config: Config) -> Mesh:
    return devices.mesh_for(config.train.batch_size // (config.train.micro_batches or 1))


def _image_format(config: Config, train: Source, *others: Source) -> ImageFormat:
    """Returns the format of the sources, whose images must be of one format."""
    images = evaluate.format_of(train)
    if not train.levels:
        offset, scale = data.standardisation(train, config.train.eval_batch_size)
        images = dataclasses.replace(images, offset=offset, scale=scale)
    for name, source in zip(("validation", "test"), others, strict=False):
        found = evaluate.format_of(source)
        if not found.same_images(images):
            raise UserError(
                f"the {name} images have {found}, the training images {images}: "
                f"choose another data.{name}_split"
            )
    return images
