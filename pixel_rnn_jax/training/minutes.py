"""Runs of a given time: `train.minutes` becomes `train.steps` once some steps have been timed."""

import dataclasses
import itertools
import time

import jax
import numpy as np
import optax
from etils import epath
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs import workdir as workdir_lib
from pixel_rnn_jax.runtime import devices, processes
from pixel_rnn_jax.training.stop import StopRequest
from pixel_rnn_jax.training.turns import Turns

TIMED_S, WARM_UP = 5.0, 3
"""How long steps are timed, after that many which are not."""


def of_run(config: Config, workdir: epath.PathLike) -> Config:
    """Returns a config with the `train.steps` that a run by the clock was given when it began."""
    if not config.train.minutes or workdir_lib.newest_step(epath.Path(workdir)) is None:
        return config
    begun = workdir_lib.read_config(workdir).train
    same = begun.minutes == config.train.minutes
    return _with_steps(config, begun.steps) if same else config


def timed(
    config: Config,
    model: PixelRNN,
    mesh: Mesh,
    source: Source,
    optimizer: optax.GradientTransformation | None,
) -> Config:
    """Returns a config with as many `train.steps` as `train.minutes` will take; 0 changes nothing.

    The steps that are timed are not part of the run.
    """
    if not config.train.minutes:
        return config
    # The schedule of the run is over steps whose number is not known yet.
    timing = dataclasses.replace(
        config.optimizer, schedule="constant", boundaries=(), boundary_factors=()
    )
    turns = Turns(dataclasses.replace(config, optimizer=timing), model, mesh, optimizer)
    step_fn, state = turns.at(1, turns.initial())
    batches = data.train_batches(
        source,
        batch_size=config.train.batch_size,
        seed=config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
    )
    begin = seconds = 0.0
    for made in itertools.count(1 - WARM_UP):
        batch = devices.shard_batch(mesh, next(batches))
        state, metrics = step_fn(state, batch, StopRequest().flags(mesh))
        jax.block_until_ready(metrics)
        if made <= 0:
            begin = time.perf_counter()
            continue
        # That of the slowest process, so that all stop timing after the same step.
        seconds = float(processes.all_gather(np.asarray(time.perf_counter() - begin)).max())
        if seconds > TIMED_S:
            break
    steps = max(1, round(60 * config.train.minutes * made / seconds))
    terminal.say(f"train.minutes: {steps:,} steps of {1000 * seconds / made:.1f} ms each")
    if config.optimizer.schedule == "cosine" and config.optimizer.warmup_steps >= steps:
        raise UserError(
            f"optimizer.warmup_steps must be below the steps that fit in train.minutes ({steps}) "
            f'for the schedule "cosine", got {config.optimizer.warmup_steps}'
        )
    return _with_steps(config, steps)


def _with_steps(config: Config, steps: int) -> Config:
    return dataclasses.replace(config, train=dataclasses.replace(config.train, steps=steps))
