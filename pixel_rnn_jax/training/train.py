"""Training, from the config to the evaluated model, in a workdir where it can be resumed."""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import platform
import signal
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.data import Split
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.files import atomic_write
from pixel_rnn_jax.image_model import ImageModel, load
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints, by_name
from pixel_rnn_jax.runs.record import Record
from pixel_rnn_jax.runs.workdir import Run, lock, open_run, resumed, write_config
from pixel_rnn_jax.runtime import devices, processes, storage
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.evaluate import Evaluation, format_of, independent_pixels, score
from pixel_rnn_jax.training.log import TrainLog, read_metrics
from pixel_rnn_jax.training.step import Metrics, TrainState, init_state, make_train_step
from pixel_rnn_jax.training.stop import stop_on_signal

PyTree = Any

PACKAGES = "pixel-rnn-jax", "jax", "jaxlib", "flax", "optax", "numpy"
"""Those whose versions a result has."""


class Result(NamedTuple):
    """A trained run, its evaluation on the test split, that of independent pixels, its pictures."""

    run: Run
    test: Evaluation | None = None
    baseline: Evaluation | None = None
    pictures: tuple[epath.Path, ...] = ()


def train(
    config: Config,
    workdir: epath.PathLike,
    splits: Mapping[str, Split] | None = None,
    *,
    optimizer: optax.GradientTransformation | None = None,
    pictures: bool = True,
) -> Result:
    """Trains a PixelRNN by maximum likelihood in `workdir`, and evaluates it on the test split.

    A run that the workdir holds already is resumed from its last checkpoint. With the same config
    it ends with the parameters and the records that it would have without the interruption, bit for
    bit. On SIGTERM, or a first Ctrl-C, the step in progress is finished and saved.

    Args:
        config: The whole description of the run.
        workdir: Where it is kept; `result.json` in it has the result.
        splits: The images for "train" and "validation", and perhaps "test"; by default those that
            the config names.
        optimizer: The update rule, instead of `config.optimizer`'s.
        pictures: Whether to draw samples, completions and curves at each validation.

    Raises:
        UserError: The workdir is in use or holds a run that cannot go on with this config; the data
            do not fit; the loss or the gradient is not finite any more. Checkpoints are kept.
        SystemExit: After a signal, with status 128 + its number (143 for SIGTERM).
    """
    begin = time.monotonic()
    processes.check()
    storage.check(workdir)
    if splits is None:
        names = ("train", "validation", "test")
        splits = {name: data.open_split(config, name) for name in names}
        data.check_disjoint(**splits)
    settings, new = config.train, _record(config, splits)
    mesh = devices.mesh_for(settings.batch_size // (settings.micro_batches or 1))
    new.image_format.model(config.model)  # What is impossible is refused before anything is made.
    if not processes.all_equal(json.dumps(new.to_dict())):
        raise UserError("the processes have different configs, flags or data: give all the same")

    with (
        lock(workdir),
        contextlib.closing(Checkpoints(workdir)) as checkpoints,
        stop_on_signal() as request,
    ):
        record = resumed(checkpoints, new)
        model = record.image_format.model(config.model)
        rate = None if optimizer else optimizers.learning_rate(config.optimizer, settings.steps)
        optimizer = optimizer or optimizers.build(config.optimizer, settings.steps)
        start, state = _start(config, model, optimizer, mesh, checkpoints)
        if processes.first():
            write_config(config, workdir)
        train_step = make_train_step(
            model,
            optimizer,
            mesh,
            ema_decay=config.optimizer.ema_decay,
            micro_batches=settings.micro_batches,
            seed=config.seed,
        )
        batches = data.train_batches(
            splits["train"],
            batch_size=settings.batch_size,
            seed=config.seed,
            start_step=start,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        step, previous = start, None
        with TrainLog(workdir, start, settings.steps, settings.batch_size) as log:
            while step < settings.steps and not _patience_ends(config, checkpoints, step):
                step += 1
                batch = devices.shard_batch(mesh, next(batches))
                state, metrics = train_step(state, batch, request.flags(mesh))
                if previous is None:
                    jax.block_until_ready(metrics)  # Compilation is not in the images per second.
                else:
                    _check_finite(step - 1, previous)  # Read while this step runs.
                log.advance()
                stop = request.agreed(previous)  # Once, so that no signal comes before the save.
                previous = metrics
                record_now, validate, save = (
                    step % every == 0 or step == settings.steps
                    for every in (
                        settings.log_every,
                        settings.eval_every,
                        settings.checkpoint_every,
                    )
                )
                if not (record_now or validate or save or stop):
                    continue

                # Nothing is recorded or saved of a step that is not known to be finite.
                _check_finite(step, metrics)
                values: dict[str, float] = {}
                if record_now:
                    values = _means(model, state) | {"train/images_per_second": log.interval()}
                    if rate is not None:
                        values["train/learning_rate"] = float(rate(step - 1))
                    state = dataclasses.replace(state, interval=jnp.zeros_like(state.interval))
                with log.paused():
                    nats = None
                    if validate:
                        size, params = settings.eval_batch_size, state.eval_params
                        scores = score(
                            model, params, splits["validation"], batch_size=size, mesh=mesh
                        )
                        evaluation = scores.evaluation
                        nats = evaluation.nats
                        _check_number(step, "the validation loss", nats)
                        terminal.log(f"step {step}: validation {evaluation}")
                        values |= {f"validation/{k}": v for k, v in evaluation.numbers().items()}
                    if values:
                        log.write(step, values)
                    if validate and pictures:
                        bound = ImageModel(model, jax.device_get(state.eval_params))
                        log.draw(step, bound, config.seed, splits["validation"])
                    if validate or save or stop:
                        log.flush()
                        checkpoints.save(step, vars(state), record, nats)
                if stop:
                    break
        checkpoints.wait()
        if request.anywhere():  # Perhaps after the last step.
            number = request.signal or signal.SIGTERM
            terminal.log(
                f"{signal.Signals(number).name}: stopped after step {step}, which is saved"
            )
            raise SystemExit(128 + number)

    run = open_run(workdir, mesh)
    return _finish(workdir, run, splits, mesh, step, start, time.monotonic() - begin)


def _record(config: Config, splits: Mapping[str, Split]) -> Record:
    """Returns the record of a new run on these images, which must be of one format."""
    image_format = format_of(splits["train"])
    for name, split in splits.items():
        if format_of(split) != image_format:
            raise UserError(
                f"data.{name}_split has images of {format_of(split)}, data.train_split of "
                f"{image_format}"
            )
    if not image_format.levels:
        offset, scale = data.standardisation(splits["train"], config.train.eval_batch_size)
        image_format = dataclasses.replace(image_format, offset=offset, scale=scale)
    digests = {name: data.digest(split) for name, split in splits.items()}
    (height, width, channels), levels = image_format.image_shape, image_format.levels
    counts = ", ".join(f"{len(split):,} {name}" for name, split in splits.items())
    values = f"{levels} levels" if levels else "real values"
    terminal.log(f"{counts} images of {height}x{width}x{channels}, {values}")
    return Record(config, image_format, digests)


def _start(
    config: Config,
    model: PixelRNN,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    checkpoints: Checkpoints,
) -> tuple[int, TrainState]:
    """Returns the number of steps made so far and the state after them, on every device."""
    on_every_device = functools.partial(jax.jit, out_shardings=devices.replicated(mesh))

    def init() -> TrainState:
        key, ema = jax.random.key(config.seed), config.optimizer.ema_decay > 0
        return init_state(model, optimizer, key, ema=ema)

    init_fn = on_every_device(init)
    step = checkpoints.latest_step()
    if step is not None:
        terminal.log(f"resuming after step {step} of {config.train.steps}")
        return step, TrainState(**checkpoints.restore(vars(jax.eval_shape(init_fn)), step))
    state = init_fn()
    if not config.init_from:
        return 0, state
    params = on_every_device(lambda tree: tree)(_initial_params(config, state.params))
    return 0, dataclasses.replace(
        state,
        params=params,
        ema=jax.tree.map(jnp.copy, params) if state.ema else {},
        opt_state=on_every_device(optimizer.init)(params),
    )


def _initial_params(config: Config, template: PyTree) -> PyTree:
    """Returns the parameters of a new model with the values of those of `init_from`.

    Raises:
        UserError: It has other parameters, without `init_partial`, or none in common.
    """
    source, new = by_name(jax.device_get(load(config.init_from).params)), by_name(template)
    taken = {n: v for n, v in source.items() if n in new and v.shape == new[n].shape}
    different = sorted((new.keys() | source.keys()) - taken.keys())
    if not taken or (different and not config.init_partial):
        raise UserError(
            f"init_from={config.init_from} has other parameters than this model ({different[0]} to "
            "begin with); init_partial=true takes those in common, if there are any"
        )
    terminal.log(f"{len(taken)} of {len(new)} parameters are those of {config.init_from}")
    values = [
        taken[name].astype(leaf.dtype) if name in taken else np.asarray(leaf)
        for name, leaf in new.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), values)


def _patience_ends(config: Config, checkpoints: Checkpoints, step: int) -> bool:
    """Whether the last `patience` validations have brought nothing better than one before."""
    settings = config.train
    if not settings.patience or step % settings.eval_every:
        return False
    best = checkpoints.best_step()
    return best is not None and step - best >= settings.patience * settings.eval_every


def _check_finite(step: int, metrics: Metrics) -> None:
    """Waits for a step, and refuses to go on if its loss or its gradient is not finite."""
    _check_number(step, "the loss", metrics.nats)
    _check_number(step, "the norm of the gradient", metrics.gradient_norm)


def _check_number(step: int, name: str, value: Any) -> None:
    if not np.isfinite(value):
        raise UserError(
            f"step {step}: {name} is {value}; earlier checkpoints are kept; a lower "
            "optimizer.learning_rate, in another workdir, may help"
        )


def _means(model: PixelRNN, state: TrainState) -> dict[str, float]:
    """Returns the means over the steps of the interval that ends here."""
    nats, norm, count = np.asarray(state.interval).tolist()
    values = {"train/nats": nats / count, "train/gradient_norm": norm / count}
    if model.levels:
        values["train/bits_per_dim"] = float(bits_per_dim(nats / count, model.dims))
    return values


def _finish(
    workdir: epath.PathLike,
    run: Run,
    splits: Mapping[str, Split],
    mesh: Mesh,
    steps: int,
    start: int,
    seconds: float,
) -> Result:
    """Evaluates a trained run on the test split, if there is one, and writes `result.json`."""
    if "test" not in splits:
        return Result(run)
    size = run.record.config.train.eval_batch_size
    scores = score(run.model, run.params, splits["test"], batch_size=size, mesh=mesh, step=run.step)
    baseline = independent_pixels(splits["train"], splits["test"], size)
    path = epath.Path(workdir) / "result.json"
    result = {
        "step": run.step,
        "test": scores.evaluation.numbers() | {"images": scores.evaluation.images},
        "independent_pixels": baseline.numbers()
        | {"images": baseline.images, "training_images": baseline.counted},
        "steps": steps,
    }
    if processes.first():
        result["validation"] = {
            name.removeprefix("validation/"): value
            for record in read_metrics(workdir)
            for name, value in record.items()
            if record["step"] == run.step and name.startswith("validation/")
        }
        training = {
            "resumed_from": start,
            "seconds": round(seconds, 1),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in PACKAGES},
            "hardware": devices.hardware(mesh.size),
        }
        before = json.loads(path.read_text()) if path.exists() else {}
        if steps == start == before.get("steps"):  # Evaluated again: the time is of the training.
            training = {name: before[name] for name in training}
        with atomic_write(path) as file:
            file.write((json.dumps(result | training, indent=2) + "\n").encode())
    folder = epath.Path(workdir) / "pictures"
    names = (f"samples-{steps}.png", f"completions-{steps}.png", "curves.png")
    drawn = tuple(folder / name for name in names if (folder / name).exists())
    return Result(run, scores.evaluation, baseline, drawn)
