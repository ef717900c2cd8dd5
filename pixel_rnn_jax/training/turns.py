"""What each step of a run trains, and the state that it starts from."""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from pixel_rnn_jax import terminal
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.initial import initial_params
from pixel_rnn_jax.training.progress import Progress
from pixel_rnn_jax.training.step import TrainState, TrainStep, init_state, make_train_step


class Turns:
    """What each step trains: all scales, or with `train.in_turn` one after another."""

    def __init__(
        self,
        config: Config,
        model: PixelRNN,
        mesh: Mesh,
        optimizer: optax.GradientTransformation | None = None,
    ):
        self._config, self._model, self._steps = config, model, config.steps_per_scale
        self._optimizer = optimizer or optimizers.build(config.optimizer, self._steps)
        # That of a caller's own optimiser is not known.
        rate = optimizers.learning_rate(config.optimizer, self._steps)
        self._learning_rate = rate if optimizer is None else lambda step: math.nan
        self._jit = functools.partial(jax.jit, out_shardings=devices.replicated(mesh))
        self._step_fns = [
            make_train_step(
                model,
                self._optimizer,
                mesh,
                ema_decay=config.optimizer.ema_decay,
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
        if step is None:
            return 0, self._from_elsewhere(self.initial())
        steps = self._config.train.steps
        done = f"all steps are done already ({step} of {steps})"
        terminal.say(done if step >= steps else f"going on from step {step}")
        template = jax.eval_shape(self._init_fn(step))
        return step, TrainState(**checkpoints.restore(vars(template), step))

    def initial(self) -> TrainState:
        """Returns the state before the first step, with random parameters, on every device."""
        state: TrainState = self._init_fn(1)()
        return state

    def _init_fn(self, step: int) -> Any:
        """Returns the compiled function that makes a state of the form that `step` has."""
        ema, scale = self._config.optimizer.ema_decay > 0, self._scale(step)

        def init() -> TrainState:
            key = jax.random.key(self._config.seed)
            return init_state(self._model, self._optimizer, key, ema=ema, scale=scale)

        return self._jit(init)

    def _from_elsewhere(self, state: TrainState) -> TrainState:
        """Returns the first state with the parameters of `init_from`, if the config names one."""
        if not self._config.init_from:
            return state
        partial = self._config.init_partial
        params = initial_params(self._config.init_from, state.params, partial=partial)
        params = self._jit(lambda tree: tree)(params)
        scale = self._scale(1)
        trained = params if scale is None else params[self._model.scales[scale].name]
        return dataclasses.replace(
            state,
            params=params,
            ema=jax.tree.map(jnp.copy, params) if state.ema else {},
            opt_state=self._jit(self._optimizer.init)(trained),
        )

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
