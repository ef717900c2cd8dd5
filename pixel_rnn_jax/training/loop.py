"""The loop of training: steps, and what is recorded, validated and saved between them."""

import contextlib
import math
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass

import jax
import numpy as np
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config, TrainConfig, to_json
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runs.records import CannotGoOn, MetricsWriter
from pixel_rnn_jax.runtime import devices, processes
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training.evaluate import Evaluation
from pixel_rnn_jax.training.previews import draw_previews
from pixel_rnn_jax.training.progress import Progress
from pixel_rnn_jax.training.step import Metrics, TrainState
from pixel_rnn_jax.training.stop import stop_on_signal
from pixel_rnn_jax.training.turns import Turns


@dataclass(frozen=True)
class Loop:
    """The loop of one run.

    Attributes:
        config: The description of the run.
        workdir: Where it is kept.
        model: What it trains.
        mesh: The devices.
        checkpoints: Where its states are saved.
        check_held: Raises a `UserError` once the workdir has gone or is another's.
        kept: Whether the workdir stays: else no pictures are drawn.
    """

    config: Config
    workdir: epath.Path
    model: PixelRNN
    mesh: Mesh
    checkpoints: Checkpoints
    check_held: Callable[[], None]
    kept: bool

    def run(
        self, turns: Turns, train: Source, validation: Source, checked: Future[None] | None
    ) -> int:
        """Trains from the last checkpoint to the last step, or until `train.patience` ends.

        Args:
            turns: What is trained in which step.
            train: The images to train on.
            validation: Those by which the best parameters are chosen.
            checked: What reads all images beside the first step; None if they have been read.

        Returns:
            The number of steps made.

        Raises:
            UserError: As `train` does.
            SystemExit: After a signal; the state is saved.
        """
        settings, checkpoints = self.config.train, self.checkpoints
        start, state = turns.start(checkpoints)
        step = start
        batches = data.train_batches(
            train,
            batch_size=settings.batch_size,
            seed=self.config.seed,
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
            writer = stack.enter_context(MetricsWriter(self.workdir, start)) if first else None
            if writer and not start:
                writer.show(1, {}, {"config": to_json(self.config)})
            while step < settings.steps and not _patience_ends(settings, checkpoints, step):
                step += 1
                step_fn, state = turns.at(step, state)
                batch = devices.shard_batch(self.mesh, next(batches))
                state, metrics = step_fn(state, batch, request.flags(self.mesh))
                if previous is not None:  # Read while this step runs.
                    _check_finite(step - 1, previous)
                else:
                    if checked:  # The data were read while this step was compiled.
                        checked.result()
                    jax.block_until_ready(metrics)  # The clock of `progress` starts after it.
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
                    if validate or save or stop:
                        self.check_held()
                    if validate:
                        found = self._validate(step, state, validation, writer)
                        record |= found.record()
                        nats = found.nats
                        progress.say(f"step {step}: validation {found}")
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
            saved = "which is saved; the same command goes on"
            if not self.kept:
                saved = "and nothing is kept without a workdir"
            request.exit(f"stopped after step {step}, {saved}")
        return step

    def _validate(
        self, step: int, state: TrainState, source: Source, writer: MetricsWriter | None
    ) -> Evaluation:
        """Evaluates the parameters of a step, and draws with them."""
        params, size = state.eval_params, self.config.train.eval_batch_size
        found = evaluate.measure(self.model, params, source, size, self.mesh)
        if not math.isfinite(found.nats):
            raise _not_finite(step, "the validation loss", found.nats)
        if self.kept:  # All processes draw: the others would only have to wait for one.
            bound = ImageModel(self.model, jax.device_get(params))
            drawn = draw_previews(bound, self.config.seed, source)
            if writer:
                writer.write_pictures(step, drawn)
        return found


def _patience_ends(settings: TrainConfig, checkpoints: Checkpoints, step: int) -> bool:
    """Whether the last `patience` validations have brought nothing better than one before."""
    if not settings.patience or step % settings.eval_every:
        return False
    best = checkpoints.best_step()
    return best is not None and step - best >= settings.patience * settings.eval_every


def _check_finite(step: int, metrics: Metrics) -> None:
    """Waits for a step, and raises `CannotGoOn` if its loss or its gradient is not finite."""
    measured = {"the loss": metrics.nats, "the norm of the gradient": metrics.gradient_norm}
    for name, value in measured.items():
        if not np.isfinite(value):
            raise _not_finite(step, name, value)


def _not_finite(step: int, name: str, value: object) -> CannotGoOn:
    return CannotGoOn(
        f"step {step}: {name} is {value}; a lower optimizer.learning_rate, in another workdir, may "
        "help"
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
