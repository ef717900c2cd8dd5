"""Training, from the config to the evaluated model; a run that was stopped goes on where it was."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import PixelRNN, bits_per_dim
from pixel_rnn_jax.runs import workdir as workdir_lib
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runs.records import CannotGoOn, MetricsWriter, picture_path
from pixel_rnn_jax.runs.workdir import ImageFormat
from pixel_rnn_jax.runtime import devices, processes, storage
from pixel_rnn_jax.training import evaluate, optimizers
from pixel_rnn_jax.training.evaluate import Evaluation
from pixel_rnn_jax.training.previews import draw_previews
from pixel_rnn_jax.training.progress import Progress
from pixel_rnn_jax.training.step import Metrics, TrainState, TrainStep, init_state, make_train_step
from pixel_rnn_jax.training.stop import stop_on_signal

PyTree = Any


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has reached.

    Attributes:
        test: The evaluation on the test split of the parameters with the best validation.
        baseline: That of the independent-pixel model.
        pictures: The last pictures of samples and completions.
    """

    test: Evaluation
    baseline: Evaluation
    pictures: tuple[epath.Path, ...]


@dataclass(frozen=True)
class _Turn:
    """What is trained for some steps: all scales, or with `train.in_turn` one of them.

    Attributes:
        scale: The name of the scale; None for all.
        first_step: The number of steps before the turn.
        dims: Values of an image that the turn learns.
        suffix: Of the names under which its loss is recorded.
        step: The compiled step.
    """

    scale: str | None
    first_step: int
    dims: int
    suffix: str
    step: TrainStep


def train(config: Config, workdir: epath.PathLike) -> TrainResult:
    """Trains a PixelRNN by maximum likelihood in `workdir`, and evaluates it on the test split.

    If the workdir holds a run already, it goes on from its last checkpoint, and ends with the
    parameters and the records that it would have ended with had it never been stopped. If that run
    is complete, it is evaluated again.

    On SIGTERM, or a first Ctrl-C, the step in progress is finished and saved.

    Args:
        config: The run.
        workdir: Gets config.json, images.json, metrics.jsonl, tensorboard/, pictures/ and
            checkpoints/.

    Raises:
        UserError: The workdir holds something else or cannot be written to; the data cannot be
            read; the loss or the gradient has ceased to be finite. Checkpoints are kept.
        SystemExit: After a signal, with status 128 + its number (143 for SIGTERM), as a shell
            reports a program that it ended: what is not complete must not look complete.
    """
    processes.check()
    storage.check(workdir)
    workdir = epath.Path(workdir)
    workdir_lib.check_usable(workdir, config)
    images, (train_source, validation_source, test_source) = _open_sources(config)
    model = PixelRNN(config.model, images.image_shape, images.levels)
    settings = config.train
    mesh = devices.mesh_for(settings.batch_size // settings.micro_batches)
    workdir_lib.begin_run(workdir, config, images)
    steps = _Steps(config, model, mesh)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        start, state = steps.start(checkpoints)
        step = start
        batches = data.train_batches(
            train_source,
            batch_size=settings.batch_size,
            seed=config.seed,
            start_step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        before: Metrics | None = None
        with (
            _saying_what_is_kept(checkpoints),
            _writer(workdir, start) as writer,
            contextlib.closing(Progress(start, settings.steps, settings.batch_size)) as progress,
            stop_on_signal() as request,
        ):
            for step in range(start + 1, settings.steps + 1):
                turn, state = steps.turn_of(step, state)
                batch = devices.shard_batch(mesh, next(batches))
                state, metrics = turn.step(state, batch, request.flags(mesh))
                if before is not None:  # Read while this step runs.
                    _check_finite(step - 1, before)
                progress.advance()
                # Asked once, so that no signal comes between saving and stopping.
                stop = request.agreed(before)
                before = metrics
                log, validate, save = steps.due(step)
                if not (log or validate or save or stop):
                    continue

                # Nothing is recorded or saved of a step that is not known to be finite.
                _check_finite(step, metrics)
                record: dict[str, float] = {}
                validation = None
                if log:
                    record, state = steps.log(step, turn, state, progress)
                with progress.paused():
                    if validate:
                        validation = _validate(step, model, state, validation_source, config, mesh)
                        record |= validation.record()
                        progress.say(f"step {step}: validation {validation}")
                        # All processes draw: the others would only have to wait for one.
                        params = jax.device_get(state.eval_params)
                        drawn = draw_previews(model, params, config.seed, validation_source)
                        if writer:
                            writer.write_pictures(step, drawn)
                    if writer and record:
                        writer.write(step, record)
                    if validate or save or stop:
                        if writer:
                            writer.flush()
                        nats = validation.nats if validation else None
                        checkpoints.save(step, vars(state), validation_nats=nats)
                if stop:
                    break

        if request.anywhere():  # Or after the last step.
            checkpoints.wait()
            request.exit(f"stopped after step {step}, which is saved; the same command goes on")

    best = workdir_lib.open_run(workdir, mesh)
    size = settings.eval_batch_size
    paths = (picture_path(workdir, name, step) for name in ("samples", "completions"))
    return TrainResult(
        test=evaluate.measure(model, best.params, test_source, size, mesh, step=best.step),
        baseline=evaluate.independent_pixels(train_source, test_source, size),
        pictures=tuple(path for path in paths if path.exists()),
    )


def _open_sources(config: Config) -> tuple[ImageFormat, tuple[Source, Source, Source]]:
    """Opens the three splits, whose images have to be of one format."""
    train, validation, test = (
        data.open_source(config, split) for split in ("train", "validation", "test")
    )
    images = ImageFormat(train.image_shape, train.levels)
    for name, source in (("validation", validation), ("test", test)):
        if (found := ImageFormat(source.image_shape, source.levels)) != images:
            raise UserError(
                f"the {name} images have {found}, the training images {images}: "
                f"choose another data.{name}_split"
            )
    return images, (train, validation, test)


class _Steps:
    """The steps of a run: what they are compiled from, and what stands between two of them."""

    def __init__(self, config: Config, model: PixelRNN, mesh: Mesh):
        self._config = config
        self._model = model
        self._mesh = mesh
        self._optimizer = optimizers.build(config.optimizer, config.turn)
        self._learning_rate = optimizers.learning_rate(config.optimizer, config.turn)
        self._turns = _turns(config, model, self._optimizer, mesh)

    def start(self, checkpoints: Checkpoints) -> tuple[int, TrainState]:
        """Returns the number of steps made so far and the state after them, on every device."""
        step = checkpoints.latest_step()
        turn = self._turns[max((step or 0) - 1, 0) // self._config.turn]

        def new() -> TrainState:
            key = jax.random.key(self._config.seed)
            ema = self._config.optimizer.average > 0
            return init_state(self._model, self._optimizer, key, ema=ema, scale=turn.scale)

        if step is None:
            return 0, jax.jit(new, out_shardings=devices.replicated(self._mesh))()
        steps = self._config.train.steps
        done = f"all steps are done already ({step} of {steps})"
        terminal.say(done if step >= steps else f"going on from step {step}")
        template = vars(devices.replicated_shapes(new, self._mesh))
        return step, TrainState(**checkpoints.restore(template, step))

    def turn_of(self, step: int, state: TrainState) -> tuple[_Turn, TrainState]:
        """Returns the turn that a step belongs to, and the state to make the step from."""
        turn = self._turns[(step - 1) // self._config.turn]
        if turn.first_step and step - 1 == turn.first_step:
            # The next scale begins as if it were the only one.
            init = jax.jit(self._optimizer.init, out_shardings=devices.replicated(self._mesh))
            state = dataclasses.replace(state, opt_state=init(state.params[turn.scale]))
        return turn, state

    def due(self, step: int) -> tuple[bool, bool, bool]:
        """Whether to log, to validate and to save after a step."""
        settings = self._config.train
        intervals = settings.log_every, settings.eval_every, settings.checkpoint_every
        log, validate, save = (step % n == 0 or step == settings.steps for n in intervals)
        return log or step % self._config.turn == 0, validate, save  # No record is of two scales.

    def log(
        self, step: int, turn: _Turn, state: TrainState, progress: Progress
    ) -> tuple[dict[str, float], TrainState]:
        """Returns the record of the interval that ends here, and the state to begin the next."""
        nats, norm, count = np.asarray(state.interval).tolist()
        nats, norm = nats / count, norm / count
        bits = float(bits_per_dim(nats, turn.dims))
        record = {
            f"train/nats{turn.suffix}": nats,
            f"train/bits_per_dim{turn.suffix}": bits,
            "train/gradient_norm": norm,
            "train/learning_rate": float(self._learning_rate(step - 1 - turn.first_step)),
            "train/images_per_second": progress.report(step, nats, bits),
        }
        return record, dataclasses.replace(state, interval=jnp.zeros_like(state.interval))


def _turns(
    config: Config, model: PixelRNN, optimizer: optax.GradientTransformation, mesh: Mesh
) -> list[_Turn]:
    """Returns the turns of a run in their order."""
    make = functools.partial(
        make_train_step,
        model,
        optimizer,
        mesh,
        ema_decay=config.optimizer.average,
        micro_batches=config.train.micro_batches,
    )
    if not config.train.in_turn:
        return [_Turn(None, 0, math.prod(model.image_shape), "", make())]
    return [
        _Turn(
            scale=scale.name,
            first_step=number * config.turn,
            dims=int((~scale.given).sum()) * model.image_shape[-1],
            suffix=f"_of_height_{scale.network.image_shape[0]}",
            step=make(scale=number, first_step=number * config.turn),
        )
        for number, scale in enumerate(model.scales)
    ]


def _validate(
    step: int, model: PixelRNN, state: TrainState, source: Source, config: Config, mesh: Mesh
) -> Evaluation:
    size = config.train.eval_batch_size
    found = evaluate.measure(model, state.eval_params, source, size, mesh)
    if not math.isfinite(found.nats):
        raise CannotGoOn(f"step {step}: the validation loss is not finite")
    return found


def _check_finite(step: int, metrics: Metrics) -> None:
    """Waits for a step, and raises `CannotGoOn` if its loss or its gradient is not finite."""
    for cause, value in (
        ("the loss", metrics.nats),
        ("the norm of the gradient", metrics.gradient_norm),
    ):
        if not np.isfinite(value):
            raise CannotGoOn(
                f"step {step}: {cause} is {value}; a lower optimizer.learning_rate, in another "
                "workdir, may help"
            )


def _writer(
    workdir: epath.Path, step: int
) -> contextlib.AbstractContextManager[MetricsWriter | None]:
    """Opens the records of the run in the first process, and none in the others."""
    return MetricsWriter(workdir, step) if processes.first() else contextlib.nullcontext()


@contextlib.contextmanager
def _saying_what_is_kept(checkpoints: Checkpoints) -> Iterator[None]:
    """Adds the last good checkpoint to the reason for which training cannot go on."""
    try:
        yield
    except CannotGoOn as error:
        step = checkpoints.latest_step()
        kept = "nothing was saved" if step is None else f"the checkpoint of step {step} is kept"
        raise UserError(f"training stopped at {error}; {kept}") from error
