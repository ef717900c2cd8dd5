"""The network of one scale: PixelCNN, Row LSTM, Diagonal BiLSTM or another (table 1)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.model import layers
from pixel_rnn_jax.model.config import ModelConfig, check
from pixel_rnn_jax.model.layers.body import Context, Position, State
from pixel_rnn_jax.model.likelihoods import Likelihood, Total, likelihood_for


class Network(nn.Module):
    """The distribution of each value of an image given all that come before it.

    A k x k convolution with mask A makes a stream of 2h features; a body and a head follow.

    The network may be conditioned on a smaller image (section 3.6), a class, a vector or a map:
    every layer adds an unmasked 1x1 map of h features, the sum of the upsampled small image and an
    embedding of the class, a two-layer map of the vector, or a 5x5 convolution of the map.

    The values of an image enter as numbers of about -1 to 1, or with `input="categorical"` as an
    embedding of each channel's levels, h features.

    A 5x5 convolution of the values with mask A makes the linear `predictions` of each value, if the
    likelihood takes predictions.
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int
    ratio: int = 0  # Height / height of the small image, and likewise the widths; 0 without one.

    def __post_init__(self) -> None:
        super().__post_init__()
        config, groups = self.config, self.mask_groups
        for field, known in ("architecture", layers.BODIES), ("head", layers.HEADS):
            rule = f"be one of {', '.join(known)}"
            check(config, f"model.{field}", rule, getattr(config, field) in known)
        has_type = config.dtype == jax.dtypes.canonicalize_dtype(config.dtype)
        check(config, "model.dtype", "be float32, unless JAX_ENABLE_X64=1 is set", has_type)
        for field in ("features", "head_features"):
            rule = f"be at least the number of channels, {groups}"
            check(config, f"model.{field}", rule, getattr(config, field) >= groups)

    @property
    def likelihood(self) -> Likelihood:
        """The distribution of a value, given its outputs."""
        return likelihood_for(self.config, self.levels)

    @property
    def total(self) -> Total | None:
        """The known sum of all values, if there is one."""
        return Total(self.config.total, self.levels) if self.config.total else None

    @property
    def mask_groups(self) -> int:
        """The channels that the masks tell apart: C, or 1 where the outputs couple them.

        It is also the number of steps that a pixel takes in the incremental form.
        """
        return 1 if self.likelihood.coupled else self.image_shape[-1]

    @property
    def recurrent(self) -> bool:
        """Whether its body scans the images."""
        body = layers.BODIES[self.config.architecture]
        return bool(layers.build(body, self.config, 1, 1, parent=None).recurrent)

    @property
    def param_dtype(self) -> np.dtype:
        """The type of parameters, outputs and random numbers: at least float32."""
        return jnp.promote_types(self.config.dtype, jnp.float32)

    def setup(self) -> None:
        """Declares embeddings, the first convolution, the body and the head."""
        config, channels, groups = self.config, self.image_shape[-1], self.mask_groups
        h, side = config.features, config.first_kernel
        options: dict[str, Any] = dict(dtype=jnp.dtype(config.dtype), param_dtype=self.param_dtype)
        if self.ratio:
            self.upsample = layers.Upsampler(h, self.ratio, **options)
        kind, size = config.condition
        if kind == "class":
            self.embed = nn.Embed(size, h, **options)
        elif kind == "vector":
            self.vector = nn.Sequential([nn.Dense(h, **options), nn.relu, nn.Dense(h, **options)])
        elif kind == "map":
            self.map = layers.Upsampler(h, 1, **options)
        inputs = channels
        if config.input == "categorical":
            inputs = channels * h
            unit = nn.initializers.normal(1.0)
            self.embed_values = nn.Embed(channels * self.levels, h, embedding_init=unit, **options)
        self.first = layers.MaskedConv(inputs, 2 * h, groups, "A", (side, side), **options)
        condition = h if self.ratio or kind else 0
        body, head = layers.BODIES[config.architecture], layers.HEADS[config.head]
        self.body = layers.build(body, config, h, groups, condition, **options)
        nn.share_scope(self, self.body)
        outputs = self.likelihood.pixel_outputs(channels)
        if self.likelihood.predictions:
            exact = options | {"dtype": self.param_dtype}
            sizes = channels, channels * self.likelihood.predictions, channels
            self.predict = layers.MaskedConv(*sizes, "A", (5, 5), **exact)
        last = options["dtype" if self.likelihood.head_may_round else "param_dtype"]
        self.head = layers.build(head, config, h, groups, outputs, last_dtype=last, **options)
        nn.share_scope(self, self.head)

    def __call__(
        self,
        values: Array,
        condition: Array | None = None,
        coarse: Array | None = None,
        dropout_keys: Array | None = None,
    ) -> Array:
        """Computes the outputs of every value at once, `[B, H, W, C, Q]`: see `likelihood`.

        Args:
            values: `[B, H, W, C]` as the likelihood takes them.
            condition: `[B]` classes, `[B, D]` vectors or `[B, H, W, D]` maps.
            coarse: `[B, H / ratio, W / ratio, C]`, the values of the small image.
            dropout_keys: `[B]` keys of `jax.random`; without them there is no dropout.
        """
        features = self.embed_condition(condition, coarse)
        maps = {name: conv(inputs(values)) for name, (conv, inputs) in self._of_values().items()}
        x = self.body(maps["first"], features, dropout_keys)
        outputs = self.split_channels(self._outputs(x, maps.get("predict")), values)
        return outputs if self.total is None else self.total.restrict_images(outputs, values)

    def _of_values(self) -> dict[str, tuple[layers.MaskedConv, Callable[[Array], Array]]]:
        """Returns the convolutions of values, and what makes their inputs of values."""
        first = self.first, self._inputs
        if self.likelihood.predictions:
            return {"first": first, "predict": (self.predict, self._scaled)}
        return {"first": first}

    def _outputs(self, x: Array, predictions: Array | None) -> Array:
        """Maps the stream and the predictions, `[..., C * M]`, to the head's outputs, moved."""
        outputs = self.head(x)
        if predictions is None:
            return outputs
        each = (*x.shape[:-1], -1)
        channels = outputs.reshape(*each, self.likelihood.outputs)
        predictions = predictions.reshape(*each, self.likelihood.predictions)
        return self.likelihood.move(channels, predictions).reshape(each)

    def _scaled(self, values: Array) -> Array:
        return self.likelihood.inputs(values, self.param_dtype)

    def _inputs(self, values: Array) -> Array:
        """Maps values, `[..., C]`, to the inputs of the first convolution, C groups of features."""
        if self.config.input == "scalar":
            return self._scaled(values)
        channels = values.shape[-1]
        first = np.arange(channels, dtype=np.int32) * self.levels
        rows = values.astype(jnp.int32) + first.reshape((1,) * (values.ndim - 1) + (-1,))
        features = channels * self.embed_values.features
        return self.embed_values(rows).reshape(*values.shape[:-1], features)

    def embed_condition(self, condition: Array | None, coarse: Array | None) -> Array | None:
        """Maps the condition to the body's: `[B, H, W, h]`, `[B, 1, 1, h]` or None."""
        terms = []
        if self.ratio:
            terms.append(self.upsample(self._inputs(jnp.asarray(coarse))))
        kind = self.config.condition.kind
        if kind == "class":
            terms.append(self.embed(condition)[:, None, None])
        elif kind == "vector":
            terms.append(self.vector(condition)[:, None, None])
        elif kind == "map":
            terms.append(self.map(jnp.asarray(condition)))
        return sum(terms[1:], start=terms[0]) if terms else None

    def context(self, features: Array | None, row: ArrayLike) -> Context | None:
        """Returns the body's terms of a row of the `features`, `[B, H, W, h]`."""
        return None if features is None else self.body.context(features[:, row])

    def init_state(self, batch: int) -> State:
        """Returns the state of the incremental form (see `layers.body`) before the first row.

        Each pixel takes `mask_groups` steps from the same state: the first gives the outputs of
        channel 0; given that value, the second gives channel 1's outputs; and so on. `end_pixel`
        completes the state of the last step, and `end_row` follows the last pixel of a row.
        """
        height, width, _ = self.image_shape
        convs = {name: conv for name, (conv, _) in self._of_values().items()}
        modules = convs | {"body": self.body}
        return {name: each.init_state(batch, height, width) for name, each in modules.items()}

    def step(
        self, state: State, pixel: Array, position: Position, context: Context | None
    ) -> tuple[Array, State]:
        """Computes the outputs for one pixel, of `split_channels`, and the state for `end_pixel`.

        The pixel has `[B, C]` values. The outputs of a channel depend on earlier ones alone, so
        that the others may hold any value; if the body is `narrow`, they may be left out, and
        so are their outputs and the state. `context` belongs to the pixel's row.
        """
        maps = {
            name: conv.step(state[name], inputs(pixel), position)[0]
            for name, (conv, inputs) in self._of_values().items()
        }
        x, body = self.body.step(state["body"], maps["first"], position, context)
        return self._outputs(x, maps.get("predict")), state | {"body": body}

    def end_pixel(self, state: State, pixel: Array, position: Position) -> State:
        """Stores the complete pixel, `[B, C]`, in the convolutions of values, for later pixels."""
        return state | {
            name: conv.remember(state[name], inputs(pixel), position)
            for name, (conv, inputs) in self._of_values().items()
        }

    def end_row(self, state: State, context: Context | None) -> State:
        """Moves on to the next row; `context` belongs to the row that ends."""
        ended = {name: conv.end_row(state[name]) for name, (conv, _) in self._of_values().items()}
        return ended | {"body": self.body.end_row(state["body"], context)}

    def split_channels(self, x: Array, values: Array) -> Array:
        """Splits the outputs for pixels by channels, `[..., C, Q]`; see `Likelihood`."""
        # The loss is never computed in less than float32.
        return self.likelihood.split_channels(x.astype(self.param_dtype), values)
