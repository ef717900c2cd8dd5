"""Training, from the config to the evaluated model, in a workdir where it can be resumed."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import signal
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data
from pixel_rnn_jax.data import Batch, Split
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.model import bits_per_dim
from pixel_rnn_jax.model.checks import check_images
from pixel_rnn_jax.model.config import check
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints, RunIdentity
from pixel_rnn_jax.runs.config import Config, to_json
from pixel_rnn_jax.runs.source import Run, open_run, open_split
from pixel_rnn_jax.runs.workdir import check_resume, lock
from pixel_rnn_jax.system import batching, devices, processes, terminal
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import atomic_write, check_storage
from pixel_rnn_jax.system.trees import by_name, check_same_types, types_of
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.evaluate import Evaluation, independent_pixels, score
from pixel_rnn_jax.training.log import OnRecord, TrainLog, overfitting, read_metrics
from pixel_rnn_jax.training.step import Loss, Metrics, TrainState, init_state, make_train_step
from pixel_rnn_jax.training.stop import StopRequest, stop_on_signal

PyTree = Any


class Result(NamedTuple):
    """A trained run, and the evaluations of it and of independent pixels on the test split."""

    run: Run
    test: Evaluation | None = None
    baseline: Evaluation | None = None


def train(
    config: Config,
    workdir: epath.PathLike,
    splits: Mapping[str, Any] | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    loss: Loss | None = None,
    on_record: OnRecord | None = None,
    pictures: bool = True,
) -> Result:
    """Trains a PixelRNN by maximum likelihood in `workdir`, and evaluates it on the test split.

    A run that the workdir holds already is resumed from its last checkpoint. With the same config
    it ends with the parameters and the records that it would have without the interruption, bit for
    bit. On SIGTERM, or a first Ctrl-C, the step in progress is finished and saved.

    `splits` are the images for "train" and "validation", and perhaps "test"; by default those that
    the config names. The batches of an iterator for "train" are this process's share of them.
    `optimizer`, `loss` and `on_record` are as in `fit`. With `pictures`, samples, completions and
    curves are drawn at each validation.

    Raises:
        UserError: The workdir is in use or holds a run that cannot go on with this config; the data
            do not fit; the loss or the gradient is not finite any more. Checkpoints are kept.
        KeyboardInterrupt: After Ctrl-C, when the run has been saved; after SIGTERM SystemExit, 143.
    """
    check_storage(workdir)
    if splits is None:
        names = ("train", "validation", "test")
        splits = {name: open_split(config, name) for name in names}
        data.check_disjoint(**splits)
    new, settings = _identity(config, splits), config.train
    mesh = devices.mesh_for(settings.batch_size // (settings.micro_batches or 1))
    new.image_format.model(config.model)  # What is impossible is refused before anything is made.
    if not processes.all_equal(json.dumps(dataclasses.asdict(new))):
        raise UserError("the processes have different configs, flags or data: give all the same")
    with (
        lock(workdir),
        contextlib.closing(Checkpoints(workdir)) as checkpoints,
        stop_on_signal() as request,
    ):
        identity = check_resume(checkpoints, new)
        training = _Training(config, workdir, splits, identity, mesh, checkpoints, pictures)
        step = training.run(optimizer, loss, on_record, request)
        checkpoints.wait()
        if request.anywhere():  # Perhaps after the last step.
            number = request.signal or signal.SIGTERM
            terminal.log(f"{signal.Signals(number).name}: step {step} is saved")
            raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
    if processes.is_first() and (advice := overfitting(read_metrics(workdir))):
        terminal.log(advice)
    return _finish(workdir, open_run(workdir, mesh), splits, mesh, step)


@dataclass
class _Training:
    """A run that is ready to train."""

    config: Config
    workdir: epath.PathLike
    splits: Mapping[str, Any]
    identity: RunIdentity
    mesh: Mesh
    checkpoints: Checkpoints
    pictures: bool
    rate: optax.Schedule | None = None  # Of the config's optimiser.
    own_loss: bool = False

    @functools.cached_property
    def model(self) -> PixelRNN:
        """The model of the images of the run."""
        return self.identity.image_format.model(self.config.model)

    def run(
        self,
        optimizer: optax.GradientTransformation | None,
        loss: Loss | None,
        on_record: OnRecord | None,
        request: StopRequest,
    ) -> int:
        """Makes the steps that are left, and returns the number of all steps made."""
        config, settings, mesh = self.config, self.config.train, self.mesh
        self.own_loss = loss is not None
        if optimizer is None:
            self.rate = optimizers.learning_rate(config.optimizer, settings.steps)
            rising = optimizers.warmup(config.optimizer, settings.steps)
            if rising != config.optimizer.warmup_steps:
                terminal.log(f"the warm-up is shortened to {rising} of {settings.steps} steps")
            optimizer = optimizers.build(config.optimizer, settings.steps)
        step, state, made = self._start(optimizer)
        if processes.is_first():  # A copy for people: checkpoints hold what is read.
            with atomic_write(epath.Path(self.workdir) / "config.json") as file:
                file.write(to_json(config).encode())
        ema, parts = config.optimizer.ema_decay, settings.micro_batches
        options: dict[str, Any] = dict(ema_decay=ema, micro_batches=parts, seed=config.seed)
        train_step: Any = make_train_step(self.model, optimizer, mesh, loss=loss, **options)
        batches = self._batches(step)
        previous, stop, compiled = None, False, None
        with contextlib.closing(
            TrainLog(self.workdir, step, settings.steps, made, on_record)
        ) as log:
            while step < settings.steps and not stop and not self._patience_ends(step):
                step += 1
                arguments = state, devices.shard_batch(mesh, next(batches)), request.flags(mesh)
                compiled = compiled or self._compiled(train_step.lower(*arguments), state)
                state, metrics = compiled(*arguments)
                if previous is not None:  # Read while this step runs.
                    _check_finite(step - 1, loss=previous.loss, gradient=previous.gradient_norm)
                log.advance()
                stop = request.agreed(previous)  # Once, so that no signal comes before the save.
                previous = metrics
                state = self._after(step, state, metrics, log, stop=stop)
        return step

    def _batches(self, start_step: int) -> Iterator[Batch]:
        """Yields this process's share of the batches from a step on."""
        images, size = self.splits["train"], self.config.train.batch_size
        place = processes.index_and_count()
        if isinstance(images, Split):
            yield from data.train_batches(
                images, batch_size=size, seed=self.config.seed, start_step=start_step, **place
            )
        for batch in images:
            if not isinstance(batch, Batch):
                raise UserError(f"images must be an iterator of data.Batch, got {type(batch)}")
            images, condition = check_images(self.model, *batch)
            count = len(images) * place["process_count"]
            rule = f"be {count}, the number of images in a batch of the iterator"
            check(self.config.train, "train.batch_size", rule, count == size)
            yield Batch(*jax.tree.map(np.asarray, (images, condition)))
        raise UserError("the iterator of batches has ended: lower train.steps, or give more")

    def _compiled(self, lowered: jax.stages.Lowered, state: TrainState) -> jax.stages.Compiled:
        """Compiles a step, in a thread so that Ctrl-C is heard, and says what it costs."""
        settings, images = self.config.train, self.splits["train"]
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        count = f"{len(images):,} " if isinstance(images, Split) else ""
        steps = f"{settings.steps:,} steps of {settings.batch_size} of {count}images"
        terminal.log(f"{parameters:,} parameters, {steps}: compiling")
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(lowered.compile).result()
        if memory := compiled.memory_analysis():
            size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
            terminal.log(f"a step takes {size / 1e6:,.1f} MB on each device")
        return compiled

    def _start(self, optimizer: optax.GradientTransformation) -> tuple[int, TrainState, Any]:
        """Returns the steps made so far, the state after them on every device, and `made`."""
        config = self.config

        def init(params: PyTree = None) -> TrainState:
            if params is None:
                params = self.model.init(jax.random.key(config.seed))
            return init_state(optimizer, params, ema=config.optimizer.ema_decay > 0)

        init_fn = jax.jit(init, out_shardings=devices.replicated(self.mesh))
        template, step = jax.eval_shape(init_fn), self.checkpoints.latest_step()
        if step is not None:
            terminal.log(f"resuming after step {step} of {config.train.steps}")
            state = TrainState(**self.checkpoints.restore(vars(template), step))
            return step, state, self.checkpoints.made(step)
        params = None
        if config.init_from:
            source = open_run(config.init_from).image_model
            params, of_source = jax.device_get(source.params), vars(source.config).items()
            changed = [(n, v) for n, v in of_source if v != getattr(config.model, n)]
            others = [f"--config.model.{n}={v}".replace(" ", "") for n, v in changed]
            types = [types_of(by_name(tree)) for tree in (template.params, params)]
            of_model = f"{source.image_shape}, {source.levels} levels, {', '.join(others)}"
            check_same_types(f"init_from={config.init_from} ({of_model})", *types)
            shape = source.image_shape, source.levels
            if others or shape != (self.model.image_shape, self.model.levels):
                terminal.log(f"init_from={config.init_from} is another model: {of_model}")
        return 0, init_fn(params), (0.0, 0)

    def _after(
        self, step: int, state: TrainState, metrics: Metrics, log: TrainLog, *, stop: bool
    ) -> TrainState:
        """Records, validates, draws and saves what is due after a step."""
        settings, last = self.config.train, step == self.config.train.steps
        record = last or step % settings.log_every == 0
        validate = last or step % settings.eval_every == 0
        save = last or step % settings.checkpoint_every == 0
        if not (record or validate or save or stop):
            return state
        # Nothing is recorded or saved of a step that is not known to be finite.
        _check_finite(step, loss=metrics.loss, gradient=metrics.gradient_norm)
        values: dict[str, float] = {}
        if record:
            values = _means(self.model, state, own_loss=self.own_loss)
            if self.rate is not None:
                values["train/learning_rate"] = float(self.rate(step - 1))
            state = dataclasses.replace(state, interval=jnp.zeros_like(state.interval))
        nats = None
        if validate:
            params, images = state.eval_params, self.splits["validation"]
            size = settings.eval_batch_size
            result = score(self.model, params, images, batch_size=size, mesh=self.mesh)
            _check_finite(step, validation=(nats := result.nats))
            terminal.log(f"step {step}: validation {result}")
            numbers = result.numbers()
            del numbers["images"]  # Always the same.
            values |= {f"validation/{name}": value for name, value in numbers.items()}
        if values:
            log.write(step, values)
        if validate and self.pictures:
            bound = ImageModel(self.model, jax.device_get(state.eval_params))
            log.draw(step, bound, self.config.seed, self.splits["validation"])
        if validate or save or stop:
            log.flush()
            made = log.seconds, len(log.records)
            self.checkpoints.save(step, vars(state), self.identity, nats, made)
        return state

    def _patience_ends(self, step: int) -> bool:
        """Whether the last `patience` validations have brought nothing better than before."""
        settings = self.config.train
        if not settings.patience or step % settings.eval_every:
            return False
        best = self.checkpoints.best_step()
        return best is not None and step - best >= settings.patience * settings.eval_every


def _identity(config: Config, splits: Mapping[str, Any]) -> RunIdentity:
    """Returns the identity of a new run on these images, which must be of one format."""
    splits = {name: split for name, split in splits.items() if isinstance(split, Split)}
    first = next(iter(splits.values()))  # Training, unless that is an iterator.
    image_format = first.format
    for name, split in splits.items():
        if split.format != image_format:
            raise UserError(
                f"data.{name}_split has images of {split.format}, data.train_split of "
                f"{image_format}"
            )
    if not image_format.levels:
        mean, std = data.standardisation(first)
        image_format = dataclasses.replace(image_format, mean=mean, std=std)
    digests = {name: data.digest(split) for name, split in splits.items()}
    counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    shape = "x".join(map(str, image_format.image_shape))
    values = f"{image_format.levels} levels" if image_format.levels else "real values"
    terminal.log(f"{counts} images of {shape}, {values}")
    for remark in first.remarks():
        terminal.log(remark)
    if "train" in splits and config.train.batch_size > len(first):
        terminal.log(f"a batch, train.batch_size={config.train.batch_size}, repeats images")
    return RunIdentity(config, image_format, digests)


def _check_finite(step: int, **values: Any) -> None:
    """Waits for values of a step, and refuses to go on if one is not finite."""
    batching.wait(values)
    for name, value in values.items():
        if not np.isfinite(value):
            raise UserError(
                f"step {step}: the {name} is {value}; earlier checkpoints are kept; a lower "
                "optimizer.learning_rate, in another workdir, may help"
            )


def _means(model: PixelRNN, state: TrainState, *, own_loss: bool) -> dict[str, float]:
    """Returns the means over the steps of the interval; a loss of one's own need not be nats."""
    total, norm, count = np.asarray(state.interval).tolist()
    name, loss = "train/loss" if own_loss else "train/nats", total / count
    values = {name: loss, "train/gradient_norm": norm / count}
    if model.levels and not own_loss:
        values["train/bits_per_dim"] = float(bits_per_dim(loss, model.num_values))
    return values


def _finish(
    workdir: epath.PathLike, run: Run, splits: Mapping[str, Any], mesh: Mesh, steps: int
) -> Result:
    """Evaluates a trained run on the test split, if there is one, and writes `result.json`."""
    if "test" not in splits:
        return Result(run)
    size, baseline = run.config.train.eval_batch_size, None
    test = score(run.model, run.params, splits["test"], batch_size=size, mesh=mesh)
    result: dict[str, Any] = {"step": run.step, "steps": steps, "test": test.numbers()}
    if run.model.levels and isinstance(splits["train"], Split):
        baseline = independent_pixels(splits["train"], splits["test"], size)
        result["independent_pixels"] = baseline.numbers()
    if processes.is_first():
        records = read_metrics(workdir)
        of_step = next((record for record in records if record["step"] == run.step), {})
        group, names = "validation/", [name for name in of_step if name.startswith("validation/")]
        result["validation"] = {name.removeprefix(group): of_step[name] for name in names}
        result["seconds"] = records[-1]["seconds"] if records else 0.0
        packages = "pixel-rnn-jax", "jax", "flax", "optax"
        result["versions"] = {name: importlib.metadata.version(name) for name in packages}
        result["hardware"] = devices.hardware(mesh.size)
        with atomic_write(epath.Path(workdir) / "result.json") as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())
    return Result(run, test, baseline)
