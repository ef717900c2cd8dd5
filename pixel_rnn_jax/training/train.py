"""Training, from the config to the evaluated model, in a workdir where it can be resumed."""

import contextlib
import dataclasses
import importlib.metadata
import json
import signal
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from pixel_rnn_jax import data
from pixel_rnn_jax.data import Batch, Split
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.model import bits_per_dim
from pixel_rnn_jax.model.checks import check_images
from pixel_rnn_jax.model.config import check
from pixel_rnn_jax.runs.config import Config, changed_fields, to_json
from pixel_rnn_jax.runs.source import Run, open_run, open_split
from pixel_rnn_jax.runs.workdir import Checkpoints, Progress, RunIdentity, check_resume, lock
from pixel_rnn_jax.system import batching, devices, processes, terminal
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import atomic_write, check_storage
from pixel_rnn_jax.system.trees import PyTree, by_name, check_same_types, types_of
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.evaluate import Evaluation, independent_pixels, score
from pixel_rnn_jax.training.log import OnRecord, TrainLog, overfitting, read_metrics
from pixel_rnn_jax.training.step import Loss, Metrics, TrainState, init_state, make_train_step
from pixel_rnn_jax.training.stop import StopRequest, stop_on_signal


class Result(NamedTuple):
    """A trained run, and the evaluations of it and of independent pixels on the test split."""

    run: Run
    test: Evaluation
    baseline: Evaluation | None  # None for real values.


def train(config: Config, workdir: epath.PathLike, **options: Any) -> Result:
    """Trains on the images that a config names, tests the run, and writes `result.json`.

    `options` are the keywords of `Training`; raises as `Training.run`.
    """
    splits = {name: open_split(config, name) for name in data.SPLITS}
    data.check_disjoint(**splits)
    training = Training(config, workdir, splits, **options)
    run, size, baseline = training.run(), config.train.eval_batch_size, None
    model, params = run.image_model.pixel_rnn, run.image_model.params
    mesh = jax.tree.leaves(params)[0].sharding.mesh
    test = score(model, params, splits["test"], batch_size=size, mesh=mesh)
    result: dict[str, Any] = {"step": run.step, "steps": training.step, "test": test.numbers()}
    if model.levels:
        baseline = independent_pixels(splits["train"], splits["test"], size)
        result["independent_pixels"] = baseline.numbers()
    if processes.is_first():
        records, prefix = read_metrics(workdir), "validation/"
        best = next((record for record in records if record["step"] == run.step), {})
        result["validation"] = {
            name.removeprefix(prefix): best[name] for name in best if name.startswith(prefix)
        }
        result["seconds"] = records[-1]["seconds"] if records else 0.0
        packages = "pixel-rnn-jax", "jax", "flax", "optax"
        result["versions"] = {name: importlib.metadata.version(name) for name in packages}
        result["hardware"] = devices.hardware(mesh.size)
        with atomic_write(epath.Path(workdir) / "result.json") as file:
            file.write((json.dumps(result, indent=2) + "\n").encode())
    return Result(run, test, baseline)


@dataclass
class Training:
    """A training on given images, in a workdir where it can be resumed.

    `splits` has "train" and "validation", or `batches` replace "train": this process's share of
    them. `optimizer`, `loss` and `on_record` are as in `fit`. With `pictures`, samples, completions
    and curves are drawn at each validation. `run` sets `step`, the number of all steps made.
    """

    config: Config
    workdir: epath.PathLike
    splits: Mapping[str, Split]
    _: KW_ONLY
    batches: Iterator[Batch] | None = None
    optimizer: optax.GradientTransformation | None = None
    loss: Loss | None = None
    on_record: OnRecord | None = None
    pictures: bool = True

    def run(self) -> Run:
        """Trains, or resumes the run of the workdir, and opens it with its best parameters.

        With the same config a resumed run ends with the parameters and the records of a run
        without the interruption, bit for bit.

        Raises a `UserError` if the workdir is in use or holds a run that cannot go on with this
        config, the data do not fit, or the loss or the gradient is not finite any more. The step is
        saved before Ctrl-C raises KeyboardInterrupt, and SIGTERM SystemExit, 143.
        """
        check_storage(self.workdir)
        settings = self.config.train
        new = _new_identity(self.config, self.splits)
        self._model = new.image_format.model(self.config.model)  # Refused before anything is made.
        _log_images(new, self.splits)
        self._mesh = devices.mesh_for(settings.batch_size // (settings.micro_batches or 1))
        checksum = np.asarray(zlib.crc32(json.dumps(dataclasses.asdict(new)).encode()), np.uint32)
        if len(np.unique(processes.all_gather(checksum))) > 1:
            raise UserError("the processes have different configs, flags or data")
        with (
            lock(self.workdir),
            contextlib.closing(Checkpoints(self.workdir)) as self._checkpoints,
            stop_on_signal() as request,
        ):
            self._identity = check_resume(self._checkpoints, new)
            self._make_steps(request)
            self._checkpoints.wait()
            # Perhaps one came after the last step.
            if processes.all_gather(np.asarray(request.signal is not None)).any():
                number = request.signal or signal.SIGTERM
                terminal.log(f"{signal.Signals(number).name}: step {self.step} is saved")
                raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(128 + number)
        if processes.is_first() and (advice := overfitting(read_metrics(self.workdir))):
            terminal.log(advice)
        return open_run(self.workdir, self._mesh)

    def _make_steps(self, request: StopRequest) -> None:
        config, settings, mesh = self.config, self.config.train, self._mesh
        rising = optimizers.warmup(config.optimizer, settings.steps)
        if self.optimizer is None and rising != config.optimizer.warmup_steps:
            terminal.log(f"the warm-up is shortened to {rising} of {settings.steps} steps")
        optimizer = self.optimizer or optimizers.build(config.optimizer, settings.steps)
        state, progress = self._start(optimizer)
        if processes.is_first():  # A copy for people: checkpoints hold what is read.
            with atomic_write(epath.Path(self.workdir) / "config.json") as file:
                file.write(to_json(config).encode())
        ema, parts = config.optimizer.ema_decay, settings.micro_batches
        options: dict[str, Any] = dict(ema_decay=ema, micro_batches=parts, seed=config.seed)
        train_step: Any = make_train_step(self._model, optimizer, mesh, loss=self.loss, **options)
        batches = self._batches(self.step)
        before, stop, compiled = None, False, None
        with TrainLog(self.workdir, self.step, settings.steps, progress, self.on_record) as log:
            while self.step < settings.steps and not stop and not self._patience_ends():
                self.step += 1
                arguments = state, devices.shard_batch(mesh, next(batches)), request.flags(mesh)
                compiled = compiled or self._compiled(train_step.lower(*arguments), state)
                state, metrics = compiled(*arguments)
                if before is not None:  # Read while this step runs.
                    _check_finite(self.step - 1, loss=before.loss, gradient=before.gradient_norm)
                log.advance()
                stop = request.agreed(before)  # Once, so that no signal comes before the save.
                before = metrics
                state = self._after(state, metrics, log, stop=stop)

    def _batches(self, start_step: int) -> Iterator[Batch]:
        size, place = self.config.train.batch_size, processes.index_and_count()
        if self.batches is None:
            order = dict(batch_size=size, seed=self.config.seed, start_step=start_step)
            yield from data.train_batches(self.splits["train"], **order, **place)
        for batch in self.batches or ():
            if not isinstance(batch, Batch):
                raise UserError(f"images must be an iterator of data.Batch, got {type(batch)}")
            images, condition = check_images(self._model, *batch)
            if (shape := images.shape[1:]) != self._model.image_shape:
                raise UserError(
                    f"images must be {self._model.image_shape} as validation, got {shape}"
                )
            count = len(images) * place["process_count"]
            rule = f"be {count}, the number of images in a batch of the iterator"
            check(self.config.train, "train.batch_size", rule, count == size)
            yield Batch(*jax.tree.map(np.asarray, (images, condition)))
        raise UserError("the iterator of batches has ended: lower train.steps, or give more")

    def _compiled(self, lowered: jax.stages.Lowered, state: TrainState) -> jax.stages.Compiled:
        """Compiles a step, in a thread so that Ctrl-C is heard, and says what it costs."""
        settings = self.config.train
        parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        steps = f"{settings.steps:,} steps of {settings.batch_size} images"
        terminal.log(f"{parameters:,} parameters, {steps}: compiling")
        with ThreadPoolExecutor(1) as pool:
            compiled = pool.submit(lowered.compile).result()
        if memory := compiled.memory_analysis():
            size = memory.temp_size_in_bytes + memory.argument_size_in_bytes
            terminal.log(f"a step takes {size / 1e6:,.1f} MB on each device")
        return compiled

    def _start(self, optimizer: optax.GradientTransformation) -> tuple[TrainState, Progress]:
        """Sets `step`, and returns the state after it on every device and the progress."""
        config = self.config

        def init(params: PyTree = None) -> TrainState:
            if params is None:
                params = self._model.init(jax.random.key(config.seed))
            return init_state(optimizer, params, ema=config.optimizer.ema_decay > 0)

        init_fn = jax.jit(init, out_shardings=devices.replicated(self._mesh))
        template, step = jax.eval_shape(init_fn), self._checkpoints.latest_step()
        self.step = step or 0
        if step is None:
            params = self._source_params(template.params) if config.init_from else None
            return init_fn(params), Progress()
        terminal.log(f"resuming after step {step} of {config.train.steps}")
        state = TrainState(**self._checkpoints.restore(vars(template), step))
        return state, Progress(*self._checkpoints.sealed(step)["progress"])

    def _source_params(self, template: PyTree) -> PyTree:
        source = open_run(self.config.init_from).image_model
        params = jax.device_get(source.params)
        changes = changed_fields(Config(source.config), Config(self.config.model))
        fields = [f"{name}={value}" for name, (value, _) in changes.items()]
        name = f"init_from={self.config.init_from} ({', '.join([str(source), *fields])})"
        check_same_types(name, *(types_of(by_name(tree)) for tree in (template, params)))
        formats = [(model.image_shape, model.levels) for model in (source, self._model)]
        if changes or formats[0] != formats[1]:
            terminal.log(f"{name} is another model")
        return params

    def _after(
        self, state: TrainState, metrics: Metrics, log: TrainLog, *, stop: bool
    ) -> TrainState:
        settings, step = self.config.train, self.step
        intervals = settings.log_every, settings.eval_every, settings.checkpoint_every
        record, validate, save = (step == settings.steps or step % n == 0 for n in intervals)
        if not (record or validate or save or stop):
            return state
        # Nothing is recorded or saved of a step that is not known to be finite.
        _check_finite(step, loss=metrics.loss, gradient=metrics.gradient_norm)
        values: dict[str, float] = {}
        if record:
            total, norm, count = np.asarray(state.interval).tolist()
            loss, default = total / count, self.loss is None  # A custom loss need not be nats.
            values = {"train/nats" if default else "train/loss": loss}
            values["train/gradient_norm"] = norm / count
            if default and self._model.levels:
                values["train/bits_per_dim"] = float(bits_per_dim(loss, self._model.num_values))
            if self.optimizer is None:
                rate = optimizers.learning_rate(self.config.optimizer, settings.steps)
                values["train/learning_rate"] = float(rate(step - 1))
            state = dataclasses.replace(state, interval=jnp.zeros_like(state.interval))
        nats, images, params = None, self.splits["validation"], state.ema or state.params
        if validate:
            size = settings.eval_batch_size
            result = score(self._model, params, images, batch_size=size, mesh=self._mesh)
            _check_finite(step, validation=(nats := result.nats))
            terminal.log(f"step {step}: validation {result}")
            numbers = result.numbers()
            del numbers["images"]  # Always the same.
            values |= {f"validation/{name}": value for name, value in numbers.items()}
        if values:
            log.write(step, values)
        if validate and self.pictures:
            bound = ImageModel(self._model, jax.device_get(params))
            log.draw(step, bound, self.config.seed, images)
        if validate or save or stop:
            log.flush()
            self._checkpoints.save(step, vars(state), self._identity, nats, log.progress)
        return state

    def _patience_ends(self) -> bool:
        """Whether the last `patience` validations have brought nothing better than before."""
        settings, step = self.config.train, self.step
        if not settings.patience or step % settings.eval_every:
            return False
        best = self._checkpoints.best_step()
        return best is not None and step - best >= settings.patience * settings.eval_every


def _new_identity(config: Config, splits: Mapping[str, Split]) -> RunIdentity:
    first, *others = splits
    image_format = splits[first].format
    for name in others:
        if splits[name].format != image_format:
            raise UserError(f"data.{name}_split has {splits[name].format}, not {image_format}")
    if not image_format.levels:
        mean, std = data.standardisation(splits[first])
        image_format = dataclasses.replace(image_format, mean=mean, std=std)
    digests = {name: data.digest(split) for name, split in splits.items()}
    return RunIdentity(config, image_format, digests)


def _log_images(identity: RunIdentity, splits: Mapping[str, Split]) -> None:
    image_format, batch_size = identity.image_format, identity.config.train.batch_size
    counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    shape = "x".join(map(str, image_format.image_shape))
    values = f"{image_format.levels} levels" if image_format.levels else "real values"
    terminal.log(f"{counts} images of {shape}, {values}")
    for remark in next(iter(splits.values())).remarks():
        terminal.log(remark)
    if "train" in splits and batch_size > len(splits["train"]):
        terminal.log(f"a batch, train.batch_size={batch_size}, repeats images")


def _check_finite(step: int, **values: Any) -> None:
    batching.wait(values)
    for name, value in values.items():
        if not np.isfinite(value):
            help_ = "a lower optimizer.learning_rate, in another workdir, may help"
            raise UserError(f"step {step}: the {name} is {value}; {help_}")
