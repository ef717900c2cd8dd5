"""Training, from the config to the evaluated model, in a workdir where it can be resumed."""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.pixel_rnn import PixelRNN
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


@dataclass(frozen=True)
class TrainResult:
    """What a finished run has reached: two evaluations on the test split, and the last pictures."""

    test: Evaluation
    baseline: Evaluation
    pictures: tuple[epath.Path, ...]


def train(config: Config, workdir: epath.PathLike) -> TrainResult:
    """Trains a PixelRNN by maximum likelihood in `workdir`, and evaluates it on the test split.

    A run that the workdir holds already is resumed from its last checkpoint. It ends with the
    parameters and the records that it would have without the interruption, bit for bit. If it is
    complete, it is only evaluated again.

    On SIGTERM, or a first Ctrl-C, the step in progress is finished and saved.

    Raises:
        UserError: The workdir holds something else or cannot be written to; the data cannot be
            read; the loss or the gradient is not finite any more. Checkpoints are kept.
        SystemExit: After a signal, with status 128 + its number (143 for SIGTERM).
    """
    processes.check()
    storage.check(workdir)
    workdir = epath.Path(workdir)
    workdir_lib.check_usable(workdir, config)
    images, (train_source, validation_source, test_source) = _open_sources(config)
    images.model(config.model)  # Refuses what is impossible before the workdir is touched.
    settings, size = config.train, config.train.eval_batch_size
    mesh = devices.mesh_for(settings.batch_size // (settings.micro_batches or 1))
    model = workdir_lib.begin_run(workdir, config, images).model(config.model)
    turns = _Turns(config, model, mesh)
    with contextlib.closing(Checkpoints(workdir)) as checkpoints:
        start, state = turns.start(checkpoints)
        step = start
        batches = data.train_batches(
            train_source,
            batch_size=settings.batch_size,
            seed=config.seed,
            start_step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        previous: Metrics | None = None
        with (
            _saying_what_is_kept(checkpoints),
            contextlib.ExitStack() as stack,
            contextlib.closing(Progress(start, settings.steps, settings.batch_size)) as progress,
            stop_on_signal() as request,
        ):
            first = processes.first()  # It alone writes.
            writer = stack.enter_context(MetricsWriter(workdir, start)) if first else None
            for step in range(start + 1, settings.steps + 1):
                step_fn, state = turns.at(step, state)
                batch = devices.shard_batch(mesh, next(batches))
                state, metrics = step_fn(state, batch, request.flags(mesh))
                if previous is not None:  # Read while this step runs.
                    _check_finite(step - 1, previous)
                progress.advance()
                # Asked once, so that no signal comes between saving and stopping.
                stop = request.agreed(previous)
                previous = metrics
                log, validate, save = turns.due(step)
                if not (log or validate or save or stop):
                    continue

                # Nothing is recorded or saved of a step that is not known to be finite.
                _check_finite(step, metrics)
                record: dict[str, float] = {}
                nats: float | None = None
                if log:
                    record, state = turns.log(step, state, progress)
                with progress.paused():
                    if validate:
                        params = state.eval_params
                        found = evaluate.measure(model, params, validation_source, size, mesh)
                        if not math.isfinite(nats := found.nats):
                            raise CannotGoOn(f"step {step}: the validation loss is not finite")
                        record |= found.record()
                        progress.say(f"step {step}: validation {found}")
                        # All processes draw: the others would only have to wait for one.
                        bound = ImageModel(model, jax.device_get(params))
                        drawn = draw_previews(bound, config.seed, validation_source)
                        if writer:
                            writer.write_pictures(step, drawn)
                    if writer and record:
                        writer.write(step, record)
                    if validate or save or stop:
                        if writer:
                            writer.flush()
                        checkpoints.save(step, vars(state), validation_nats=nats)
                if stop:
                    break

        if request.anywhere():  # Or after the last step.
            checkpoints.wait()
            request.exit(f"stopped after step {step}, which is saved; the same command goes on")

    best = workdir_lib.open_run(workdir, mesh)
    test = evaluate.measure(model, best.params, test_source, size, mesh, step=best.step)
    baseline = evaluate.independent_pixels(train_source, test_source, size)
    paths = (picture_path(workdir, name, step) for name in ("samples", "completions"))
    return TrainResult(test, baseline, tuple(path for path in paths if path.exists()))


def _open_sources(config: Config) -> tuple[ImageFormat, tuple[Source, Source, Source]]:
    """Opens the three splits, whose images must be of one format."""
    train, validation, test = (
        data.open_source(config, split) for split in ("train", "validation", "test")
    )
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    if not train.levels:
        offset, scale = data.standardisation(train, config.train.eval_batch_size)
    images = ImageFormat(train.image_shape, train.levels, offset, scale, train.class_names)
    for name, source in (("validation", validation), ("test", test)):
        found = ImageFormat(source.image_shape, source.levels, class_names=source.class_names)
        if not found.same_images(images):
            raise UserError(
                f"the {name} images have {found}, the training images {images}: "
                f"choose another data.{name}_split"
            )
    return images, (train, validation, test)


class _Turns:
    """What each step trains: all scales, or with `train.in_turn` one after another."""

    def __init__(self, config: Config, model: PixelRNN, mesh: Mesh):
        self._config, self._model, self._steps = config, model, config.steps_per_scale
        self._optimizer = optimizers.build(config.optimizer, self._steps)
        self._learning_rate = optimizers.learning_rate(config.optimizer, self._steps)
        self._jit = functools.partial(jax.jit, out_shardings=devices.replicated(mesh))
        self._step_fns = [
            make_train_step(
                model,
                self._optimizer,
                mesh,
                ema_decay=config.optimizer.average,
                scale=scale,
                first_step=(scale or 0) * self._steps,
                micro_batches=config.train.micro_batches,
            )
            for scale in (range(len(model.scales)) if config.train.in_turn else [None])
        ]

    def _scale(self, step: int) -> int | None:
        """Returns the number of the only scale that a step trains; None for all."""
        return (step - 1) // self._steps if self._config.train.in_turn else None

    def start(self, checkpoints: Checkpoints) -> tuple[int, TrainState]:
        """Returns the number of steps made so far and the state after them, on every device."""
        step = checkpoints.latest_step()
        ema, scale = self._config.optimizer.average > 0, self._scale(step or 1)

        def init() -> TrainState:
            key = jax.random.key(self._config.seed)
            return init_state(self._model, self._optimizer, key, ema=ema, scale=scale)

        init_fn = self._jit(init)
        if step is None:
            return 0, init_fn()
        steps = self._config.train.steps
        done = f"all steps are done already ({step} of {steps})"
        terminal.say(done if step >= steps else f"going on from step {step}")
        return step, TrainState(**checkpoints.restore(vars(jax.eval_shape(init_fn)), step))

    def at(self, step: int, state: TrainState) -> tuple[TrainStep, TrainState]:
        """Returns the compiled function for a step, and the state that it takes."""
        number, made = divmod(step - 1, self._steps)
        if number and not made:  # The next scale begins as if it were the only one.
            params = state.params[self._model.scales[number].name]
            opt_state = self._jit(self._optimizer.init)(params)
            state = dataclasses.replace(state, opt_state=opt_state)
        return self._step_fns[number], state

    def due(self, step: int) -> tuple[bool, bool, bool]:
        """Whether to log, to validate and to save after a step."""
        settings = self._config.train
        intervals = settings.log_every, settings.eval_every, settings.checkpoint_every
        log, validate, save = (step % n == 0 or step == settings.steps for n in intervals)
        return log or step % self._steps == 0, validate, save  # No record is of two scales.

    def log(
        self, step: int, state: TrainState, progress: Progress
    ) -> tuple[dict[str, float], TrainState]:
        """Returns the record of the interval that ends here, and the state to go on with."""
        dims, suffix = math.prod(self._model.image_shape), ""
        if (number := self._scale(step)) is not None:
            scale = self._model.scales[number]
            height, _, channels = scale.network.image_shape
            dims, suffix = int((~scale.given).sum()) * channels, f"_of_height_{height}"
        nats, norm, count = np.asarray(state.interval).tolist()
        nats, norm = nats / count, norm / count
        bits = float(bits_per_dim(nats, dims)) if self._model.levels else None
        record = {
            f"train/nats{suffix}": nats,
            **({} if bits is None else {f"train/bits_per_dim{suffix}": bits}),
            "train/gradient_norm": norm,
            "train/learning_rate": float(self._learning_rate((step - 1) % self._steps)),
            "train/images_per_second": progress.report(step, nats, bits),
        }
        return record, dataclasses.replace(state, interval=jnp.zeros_like(state.interval))


def _check_finite(step: int, metrics: Metrics) -> None:
    """Waits for a step, and raises `CannotGoOn` if its loss or its gradient is not finite."""
    measured = {"the loss": metrics.nats, "the norm of the gradient": metrics.gradient_norm}
    for name, value in measured.items():
        if not np.isfinite(value):
            raise CannotGoOn(
                f"step {step}: {name} is {value}; a lower optimizer.learning_rate, in another "
                "workdir, may help"
            )


@contextlib.contextmanager
def _saying_what_is_kept(checkpoints: Checkpoints) -> Iterator[None]:
    """Adds the last checkpoint to the reason for which training cannot go on."""
    try:
        yield
    except CannotGoOn as error:
        step = checkpoints.latest_step()
        kept = "nothing was saved" if step is None else f"the checkpoint of step {step} is kept"
        raise UserError(f"training stopped: {error}; {kept}") from error
