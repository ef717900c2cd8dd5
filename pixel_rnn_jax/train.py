"""Training, from the config to the evaluated model; a run that was stopped goes on where it was."""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from pixel_rnn_jax import (
    complete,
    data,
    distributed,
    evaluate,
    joint,
    likelihoods,
    models,
    optimizers,
    parallel,
    pictures,
    sample,
    storage,
    terminal,
)
from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.checkpoints import Checkpoints
from pixel_rnn_jax.config import Config, ImageFormat
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.evaluate import Evaluation
from pixel_rnn_jax.metrics import CannotGoOn, Interval, MetricsWriter, Progress, picture_path
from pixel_rnn_jax.models import Model

PyTree = Any

PICTURE_IMAGES = 16
"""Images of a picture that training draws: few, so that they cost little."""
PICTURE_PARTICLES = 16
"""Of completions whose known half does not come first in generation order."""


@dataclass(frozen=True)
class _Turn:
    """What is trained for some steps: everything, or with `train.in_turn` one scale.

    Attributes:
        part: Its name among the parameters; None for all of them.
        suffix: Of the names under which its loss is recorded.
        dims: Values of an image that it gives.
        loss: (parameters, batch) to nats `[B, scales]`.
    """

    part: str | None
    suffix: str
    dims: int
    loss: joint.NatsFn


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has reached.

    Attributes:
        step: The step with the best validation, whose parameters were evaluated.
        test: Their evaluation on the test split.
        baseline: That of the independent-pixel model.
    """

    step: int
    test: Evaluation
    baseline: Evaluation


def train(config: Config, workdir: epath.PathLike) -> TrainResult:
    """Trains a PixelRNN by maximum likelihood in `workdir`, and evaluates it on the test split.

    If the workdir holds a run already, it goes on from its last checkpoint, and ends with the
    parameters and the records that it would have ended with had it never been stopped. If that run
    is complete, it is evaluated again.

    On SIGTERM, or a first Ctrl-C, the step in progress is finished and saved.

    Args:
        config: The run.
        workdir: Gets config.json, metrics.jsonl, tensorboard/, pictures/ and checkpoints/.

    Raises:
        UserError: The workdir holds something else or cannot be written to; the data cannot be
            read; the loss or the gradient has ceased to be finite. Checkpoints are kept.
        SystemExit: After a signal, with status 128 + its number (143 for SIGTERM), as a shell
            reports a program that it ended: what is not complete must not look complete.
    """
    distributed.check()
    storage.check(workdir)
    workdir = epath.Path(workdir)
    _check(workdir, config)
    train_source, validation_source, test_source = (
        data.source_of(config, split) for split in ("train", "validation", "test")
    )
    images = ImageFormat(train_source.image_shape, train_source.levels)
    for name, source in (("validation", validation_source), ("test", test_source)):
        if (found := ImageFormat(source.image_shape, source.levels)) != images:
            raise UserError(
                f"the {name} images have {found}, the training images {images}: "
                f"choose another data.{name}_split"
            )
    settings = config.train
    mesh = parallel.mesh_for(settings.batch_size // settings.micro_batches)
    model = models.create(config.model, images.image_shape, images.levels)
    dims = math.prod(images.image_shape)
    optimizer = optimizers.build(config.optimizer, config.turn)
    rate = optimizers.learning_rate(config.optimizer, config.turn)
    whole = joint.nats_by_scale(model)
    turns = [_Turn(None, "", dims, whole)]
    if settings.in_turn:
        turns = [
            _Turn(
                scale.name,
                f"_of_height_{scale.network.image_shape[0]}",
                int((~scale.given).sum()) * images.image_shape[-1],
                joint.nats_of_scale(model, number),
            )
            for number, scale in enumerate(models.scales(model))
        ]
    step_fns = [
        parallel.make_train_step(
            turn.loss,
            optimizer,
            config.optimizer.average,
            mesh,
            turn.part,
            number * config.turn,
            settings.micro_batches,
        )
        for number, turn in enumerate(turns)
    ]
    nats_fn = parallel.map_batch(whole, mesh)
    _write_config(workdir, config, images)

    new_opt_state = jax.jit(optimizer.init, out_shardings=parallel.everywhere(mesh))

    def measure(params: PyTree, source: data.Source) -> Evaluation:
        return evaluate.measure(nats_fn, params, source, settings.eval_batch_size, mesh)

    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        start, state = _start(checkpoints, config, model, optimizer, mesh, turns)
        step = start
        if start >= settings.steps:
            terminal.say(f"all steps are done already ({start} of {settings.steps})")
        elif start:
            terminal.say(f"going on from step {start}")
        interval = Interval(state.pop("interval"))
        batches = data.train_batches(
            train_source,
            batch_size=settings.batch_size,
            seed=config.seed,
            start_step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        with (
            _saying_what_is_left(checkpoints),
            _writer(workdir, start) as metrics,
            contextlib.closing(Progress(start, settings.steps, settings.batch_size)) as progress,
            _signals() as received,
        ):
            for step in range(start + 1, settings.steps + 1):
                number, made = divmod(step - 1, config.turn)  # Updates that were made in this turn.
                turn = turns[number]
                if number and not made:  # The next scale begins as if it were the only one.
                    state["opt_state"] = new_opt_state(state["params"][turn.part])
                batch = parallel.shard_batch(mesh, next(batches))
                state, measured = step_fns[number](state, batch, _asking(received, mesh))
                interval.add(step, measured)  # Waits for the step before, while this one runs.
                progress.advance()
                intervals = settings.log_every, settings.eval_every, settings.checkpoint_every
                log, validate, save = (step % n == 0 or step == settings.steps for n in intervals)
                log |= step % config.turn == 0  # No record is of two scales.
                # Asked once, so that no signal comes between saving and stopping.
                stop = _asked(received, interval)
                if not (log or validate or save or stop):
                    continue

                # Nothing is recorded or saved of a step that is not known to be finite.
                interval.wait()
                record: dict[str, float] = {}
                validation = None
                if log:
                    nats, gradient_norm = interval.close()
                    bits = float(likelihoods.bits_per_dim(nats, turn.dims))
                    record |= {
                        f"train/nats{turn.suffix}": nats,
                        f"train/bits_per_dim{turn.suffix}": bits,
                        "train/gradient_norm": gradient_norm,
                        "train/learning_rate": float(rate(made)),
                        "train/images_per_second": progress.report(step, nats, bits),
                    }
                with progress.paused():
                    if validate:
                        validation = measure(state["average"] or state["params"], validation_source)
                        if not math.isfinite(validation.nats):
                            raise CannotGoOn(f"step {step}: the validation loss is not finite")
                        record |= {
                            "validation/nats": validation.nats,
                            "validation/standard_error": validation.standard_error,
                            "validation/bits_per_dim": validation.bits_per_dim,
                        }
                        progress.say(f"step {step}: validation {validation}")
                        for share, height in zip(
                            validation.shares, config.model.scales, strict=False
                        ):
                            record[f"validation/nats_of_height_{height}"] = share
                        # In every process, as the others would only have to wait for one.
                        params = jax.device_get(state["average"] or state["params"])
                        drawn = _pictures(model, params, config.seed, validation_source)
                        if metrics:
                            for name, picture in drawn.items():
                                metrics.write_picture(step, name, picture)
                    if metrics and record:
                        metrics.write(step, record)
                    if validate or save or stop:
                        if metrics:
                            metrics.flush()
                        checkpoints.save(
                            step,
                            state | {"interval": interval.sums},
                            validation_nats=validation.nats if validation else None,
                        )
                if stop:
                    break

        if parallel.from_all(np.asarray(bool(received))).any():  # Or after the last step.
            checkpoints.wait()
            number = received[0] if received else signal.SIGTERM
            terminal.say(
                f"{signal.Signals(number).name}: stopped after step {step}, which is saved; the "
                "same command goes on"
            )
            raise SystemExit(128 + number)
        best, params = evaluate.best_parameters(checkpoints, config, model, mesh)

    test = measure(params, test_source)
    baseline = evaluate.independent_pixels(train_source, test_source, settings.eval_batch_size)
    counted = min(len(train_source), evaluate.BASELINE_IMAGES)
    kind = "" if model.likelihood.discrete else evaluate.DENSITY
    terminal.say(f"test, step {best}: {test}{kind}{evaluate.shares(test, model)}")
    terminal.say(f"independent pixels: {baseline}; histograms of {counted:,} training images")
    for name in ("samples", "completions"):
        if (path := picture_path(workdir, name, step)).exists():
            terminal.say(f"{name}: {path}")
    return TrainResult(best, test, baseline)


def _pictures(
    model: Model, params: PyTree, seed: int, validation: data.Source
) -> dict[str, np.ndarray]:
    """Returns a picture of samples, and one of validation images whose lower half is drawn anew.

    The random numbers are the same each time, so that what differs is what was learnt. A density
    completes no images.
    """
    key = jax.random.key(seed)
    labels = sample.every_class(PICTURE_IMAGES, model.config.classes)
    samples, _ = sample.sample(model, params, key, PICTURE_IMAGES, labels=labels)
    drawn = {"samples": pictures.grid(sample.as_levels(model, samples), model.levels)}
    if model.likelihood.discrete:
        images, labels = validation.batch(range(min(PICTURE_IMAGES, len(validation))))
        known = np.broadcast_to(pictures.known_mask("top_half", model.image_shape), images.shape)
        particles = 1 if complete.is_exact(model, known) else PICTURE_PARTICLES
        completed = complete.complete(
            model, params, key, images, known, labels=labels, particles=particles
        ).images
        drawn["completions"] = pictures.completions(images, known, completed, model.levels)
    return drawn


def _check(workdir: epath.Path, config: Config) -> None:
    """Refuses a workdir with something else than a run that can go on with this config."""
    if (workdir / "config.json").exists():
        config_lib.check_resumable(config_lib.read_config(workdir), config)
        return
    for name in ("checkpoints", "metrics.jsonl"):
        if (workdir / name).exists():
            raise UserError(
                f"{workdir} has {name} but no config.json, so what it holds is not known: use "
                "another --workdir"
            )


def _write_config(workdir: epath.Path, config: Config, images: ImageFormat) -> None:
    """Writes config.json and images.json, when nothing else can be wrong with either."""
    if distributed.first():
        try:
            config_lib.write_image_format(images, workdir)
            config_lib.write_config(config, workdir)
        except storage.errors() as error:
            raise UserError(f"{workdir} cannot be written to: {storage.reason(error)}") from error
    if not parallel.same_everywhere(config_lib.to_json(config)):
        raise UserError("the processes were given different configs or flags: give all the same")
    seen_by = time.monotonic() + distributed.STORAGE_S
    while not (workdir / "config.json").exists() or config_lib.read_config(workdir) != config:
        if time.monotonic() > seen_by:
            raise UserError(
                f"the first process has begun a run in {workdir}, which this process does not see: "
                "--workdir must be on storage that all processes share"
            )
        time.sleep(1)


def _writer(
    workdir: epath.Path, step: int
) -> contextlib.AbstractContextManager[MetricsWriter | None]:
    """Opens the records of the run in the first process, and none in the others."""
    return MetricsWriter(workdir, step) if distributed.first() else contextlib.nullcontext()


def _start(
    checkpoints: Checkpoints,
    config: Config,
    model: Model,
    optimizer: optax.GradientTransformation,
    mesh: jax.sharding.Mesh,
    turns: list["_Turn"],
) -> tuple[int, dict[str, PyTree]]:
    """Returns the number of updates made so far and the state after them, on every device."""
    step = checkpoints.latest_step()
    part = turns[max((step or 0) - 1, 0) // config.turn].part if len(turns) > 1 else None

    def new() -> dict[str, PyTree]:
        key = jax.random.key(config.seed)
        params = joint.init_parameters(model, key)
        state = parallel.initial_state(params, optimizer, config.optimizer.average, part)
        return state | {"key": jax.random.key_data(key), "interval": jnp.zeros(3)}

    if step is None:
        return 0, jax.jit(new, out_shardings=parallel.everywhere(mesh))()
    return step, checkpoints.restore(parallel.shapes_everywhere(new, mesh), step)


@contextlib.contextmanager
def _saying_what_is_left(checkpoints: Checkpoints) -> Iterator[None]:
    """Adds the last good checkpoint to the reason for which training cannot go on."""
    try:
        yield
    except CannotGoOn as error:
        step = checkpoints.latest_step()
        left = "nothing was saved" if step is None else f"the checkpoint of step {step} is kept"
        raise UserError(f"training stopped at {error}; {left}") from error


def _asking(received: list[int], mesh: jax.sharding.Mesh) -> jax.Array | None:
    """Returns what tells the other processes, with the next step, whether this one shall stop."""
    if jax.process_count() == 1:
        return None
    return parallel.shard_batch(mesh, np.full(mesh.local_mesh.size, bool(received)))


def _asked(received: list[int], interval: Interval) -> bool:
    """Whether to stop: of several processes all after the same step, whichever had the signal."""
    return bool(received) if jax.process_count() == 1 else interval.asked_to_stop


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """Yields a list that gets the first SIGTERM or Ctrl-C; a second one acts as it always does."""
    received: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()

    # Python lets no other thread have handlers. A program in the background ignores Ctrl-C.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, note) or signal.SIG_DFL
    try:
        yield received
    finally:
        restore()
