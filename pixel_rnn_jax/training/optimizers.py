"""The update rule: what happens to a gradient before it is added to the parameters."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib

from pixel_rnn_jax.runs.config import OptimizerConfig

RMSPROP_DECAY = 0.99
"""Decay of RMSProp's mean of squared gradients, which the paper does not give.

1,500 steps of configs/digits.py ended 0.2 to 0.4 validation nats lower than with 0.9 or 0.95.
"""

MUON_RMS = 0.2
"""Root mean square of Muon's update of a matrix, as a multiple of the rate; about Adam's."""


def warmup(config: OptimizerConfig, steps: int) -> int:
    """Returns the warm-up steps; a run no longer than its warm-up gets a tenth of its steps."""
    return config.warmup_steps if config.warmup_steps < steps else steps // 10


def learning_rate(config: OptimizerConfig, steps: int) -> optax.Schedule:
    """Returns the rate as a function of the updates made before; "cosine" ends after `steps`."""
    rising = warmup(config, steps)
    shape = optax.constant_schedule(1.0)
    if config.schedule == "cosine":
        shape = optax.cosine_decay_schedule(1.0, steps - rising)

    def rate(step: jax.typing.ArrayLike) -> jax.typing.ArrayLike:
        # Above zero at step 0, or the first update would be wasted.
        warmth = jnp.minimum(1.0, (step + 1) / max(rising, 1))
        return config.learning_rate * warmth * shape(jnp.maximum(step - rising, 0))

    return rate


def build(config: OptimizerConfig, steps: int) -> optax.GradientTransformation:
    """Returns clipping by the global norm, then the update rule at the scheduled rate.

    The decay of the weights follows the rule and is not part of its means (Loshchilov and Hutter,
    "Decoupled Weight Decay Regularization", 2019).

    RMSProp's mean of squares starts at zero and is corrected for that, as Adam's is: without the
    correction the first update would be 1 / sqrt(1 - decay) times as long. Muon scales the update
    of a matrix to the root mean square of an update of Adam, so that both have one rate; its Adam,
    for the other parameters, has Nesterov momentum.
    """
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    rate = learning_rate(config, steps)
    if config.name == "muon":
        rule = optax.contrib.muon(
            rate,
            muon_weight_dimension_numbers=_matrices,
            consistent_rms=MUON_RMS,
            weight_decay=config.weight_decay,
        )
        return optax.chain(clip, rule)
    if config.name == "rmsprop":
        rule = optax.scale_by_rms(RMSPROP_DECAY, eps_in_sqrt=False, bias_correction=True)
    else:
        rule = optax.scale_by_adam()
    decay = optax.identity()  # Which has no arrays either, so that a resumed run may change it.
    if config.weight_decay:
        decay = optax.add_decayed_weights(config.weight_decay, _are_matrices)
    return optax.chain(clip, rule, decay, optax.scale_by_learning_rate(rate))


def _matrices(params: Any) -> Any:
    """Returns for each parameter the axes of the matrix that Muon sees; None leaves it to Adam.

    All axes but the last are inputs: a convolution sums over its taps and input features. Adam has
    the vectors, the embeddings (a row for each class or level) and the last layer (a column for
    each parameter of the distribution of a value).
    """

    def axes(path: tuple[Any, ...], value: jax.Array) -> optax.contrib.MuonDimensionNumbers | None:
        name = jax.tree_util.keystr(path)
        if value.ndim < 2 or "embed" in name or "logits" in name:
            return None
        last = value.ndim - 1
        return optax.contrib.MuonDimensionNumbers(tuple(range(last)), (last,))

    return jax.tree_util.tree_map_with_path(axes, params)


def _are_matrices(params: Any) -> Any:
    """Returns for each parameter whether Muon sees a matrix in it."""
    axes = _matrices(params)
    return jax.tree.map(lambda _, axes: axes is not None, params, axes)
