"""One step of training: loss, gradient, update, and the moving average of the parameters."""

import functools
import math
from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import optax
from jax import Array
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, PartitionSpec

from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import tuning
from pixel_rnn_jax.system.devices import AXIS
from pixel_rnn_jax.system.trees import PyTree


@flax.struct.dataclass
class TrainState:
    """What a step changes and a checkpoint holds."""

    params: PyTree
    ema: PyTree  # The moving average of the parameters, which evaluation uses; else empty.
    opt_state: PyTree
    step: Array  # The number of steps made.
    interval: Array  # Sums since the last record: losses, gradient norms, steps.


Loss = Callable[[PixelRNN, PyTree, Batch, Array | None], Array]
"""Maps a model, its parameters, a batch and the keys of dropout, `[B]` or None, to a loss."""


@flax.struct.dataclass
class Metrics:
    """What a step measures before its update, over the global batch."""

    loss: Array  # By default the mean of -log p, in nats per image.
    gradient_norm: Array  # Before clipping.
    stop: Array  # Above 0 if a process asks that training stop.


def init_state(optimizer: optax.GradientTransformation, params: PyTree, *, ema: bool) -> TrainState:
    """Returns the state before the first step."""
    return TrainState(
        params=params,
        ema=jax.tree.map(jnp.copy, params) if ema else {},  # A step donates the buffers of both.
        opt_state=optimizer.init(params),
        step=jnp.zeros((), jnp.int32),
        interval=jnp.zeros(3),
    )


def mean_nats(
    model: PixelRNN, params: PyTree, batch: Batch, dropout_keys: Array | None = None
) -> Array:
    """Returns the mean of -log p(image) over a batch, in nats."""
    return model.nats_by_scale(params, *batch, dropout_keys=dropout_keys).sum(-1).mean()


def make_train_step(
    model: PixelRNN,
    optimizer: optax.GradientTransformation,
    mesh: Mesh,
    *,
    ema_decay: float,
    micro_batches: int = 1,
    seed: int = 0,
    loss: Loss | None = None,
) -> Callable[[TrainState, Batch, Array | None], tuple[TrainState, Metrics]]:
    """Compiles one step of training on a mesh.

    The loss, by default `mean_nats`, is averaged over the batch. Each device has the whole state
    and an equal share of the batch, which it computes in `micro_batches` equal parts; 0 chooses by
    platform. What dropout zeroes depends on the `seed`, the step and the place in the global batch.

    The function takes the state (which is donated), a batch, and the stop flags: a boolean for each
    device, or None for a single process.
    """
    pixels = math.prod(model.image_shape[:2])
    # JAX refuses a loss that is no scalar.
    gradient_fn = jax.value_and_grad(functools.partial(loss or mean_nats, model))

    def train_step(
        state: TrainState, batch: Batch, stop: Array | None
    ) -> tuple[TrainState, Metrics]:
        count, keys = len(batch.images), None
        parts = micro_batches or tuning.parts(count, pixels, recurrent=model.recurrent)
        if model.config.dropout:
            key = jax.random.fold_in(jax.random.key(seed), state.step)
            rows = jax.lax.axis_index(AXIS) * count + jnp.arange(count)
            keys = jax.vmap(jax.random.fold_in, (None, 0))(key, rows)
        value, gradient = _mean_over_parts(gradient_fn, parts, state.params, batch, keys)
        # One vector, so that there is one all-reduce rather than one for each parameter.
        stopping = jnp.zeros((), value.dtype) if stop is None else stop.any().astype(value.dtype)
        vector, unravel = ravel_pytree((value, gradient, stopping))
        value, gradient, stopping = unravel(jax.lax.pmean(vector, AXIS))
        norm = optax.tree.norm(gradient)

        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params, ema, step = optax.apply_updates(state.params, updates), state.ema, state.step + 1
        if ema_decay:
            # Early on the average covers the last tenth of the steps, not the random start.
            decay = jnp.minimum(ema_decay, (1 + step) / (10 + step))
            ema = optax.incremental_update(params, ema, 1 - decay)
        interval = state.interval + jnp.stack([value, norm, jnp.ones_like(value)])
        return TrainState(params, ema, opt_state, step, interval), Metrics(value, norm, stopping)

    whole, split = PartitionSpec(), PartitionSpec(AXIS)
    # With the check JAX would add up the gradient of shared parameters by itself, one by one.
    mapped = jax.shard_map(
        train_step, mesh=mesh, in_specs=(whole, split, split), out_specs=whole, check_vma=False
    )
    return jax.jit(mapped, donate_argnums=0)


def _mean_over_parts(
    function: Callable[..., PyTree], parts: int, params: PyTree, *rows: PyTree
) -> PyTree:
    """Returns the mean of a function over equal parts of a batch, computed one after another."""
    if parts == 1:
        return function(params, *rows)
    batches = jax.tree.map(lambda x: x.reshape(parts, -1, *x.shape[1:]), rows)

    def add(total: PyTree, part: PyTree) -> tuple[PyTree, None]:
        return jax.tree.map(jnp.add, total, function(params, *part)), None

    shapes = jax.eval_shape(function, params, *jax.tree.map(lambda x: x[0], batches))
    total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, shapes), batches)
    return jax.tree.map(lambda x: x / parts, total)
