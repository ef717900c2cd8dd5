"""The network of one scale: PixelCNN, Row LSTM or Diagonal BiLSTM by its body layer (table 1)."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax import layers
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.layers.body import Context, State
from pixel_rnn_jax.models.likelihoods import Likelihood, Softmax, likelihood_for


class Network(nn.Module):
    """The distribution of each value of an image given all that come before it.

    A k x k convolution with mask A, body layers over a stream of 2h features, and a head: (ReLU,
    1x1 with mask B) twice, ReLU, 1x1 with mask B to the outputs. The last convolution has a ReLU
    before it as well, since two linear maps in a row would be one.

    The network may be conditioned on a smaller image (section 3.6), on a class, a vector or a map:
    every body layer adds an unmasked 1x1 map of h features to its input-to-state map. They are the
    sum of the upsampled small image and of an embedding of the class, a two-layer map of the
    vector, or a 5x5 convolution of the map.

    The values of an image enter as numbers of about -1 to 1, or with `input="categorical"` as an
    embedding of each channel's levels, h features.
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int
    ratio: int = 0  # Height / height of the small image, and likewise the widths; 0 without one.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config.architecture not in layers.LAYERS:
            names = ", ".join(layers.LAYERS)
            raise UserError(
                "model.architecture and model.scale_architectures take the names of body layers, "
                f"{names}, got {self.config.architecture!r}"
            )
        if self.config.dtype != jax.dtypes.canonicalize_dtype(self.config.dtype):
            raise UserError('model.dtype "float64" needs jax_enable_x64: set JAX_ENABLE_X64=1')
        for field in ("features", "head_features"):
            if getattr(self.config, field) < self.mask_groups:
                raise UserError(
                    f"model.{field} must be at least the number of channels, {self.mask_groups}, "
                    f"got {getattr(self.config, field)}"
                )

    @property
    def likelihood(self) -> Likelihood:
        """The distribution of a value, given its outputs."""
        return likelihood_for(self.config, self.levels)

    @property
    def mask_groups(self) -> int:
        """The channels that the masks tell apart: C, or 1 where the outputs couple them.

        It is also the number of steps that a pixel takes in the incremental form.
        """
        return 1 if self.likelihood.coupled else self.image_shape[-1]

    @property
    def recurrent(self) -> bool:
        """Whether its body layers scan the images."""
        return layers.LAYERS[self.config.architecture].recurrent

    @property
    def param_dtype(self) -> np.dtype:
        """The type of parameters, outputs and random numbers: at least float32."""
        return jnp.promote_types(self.config.dtype, jnp.float32)

    def setup(self) -> None:
        """Declares embeddings, the first convolution, the body layers and the head."""
        config, channels, groups = self.config, self.image_shape[-1], self.mask_groups
        h, width, side = config.features, config.head_features, config.first_kernel
        options: dict[str, Any] = dict(dtype=jnp.dtype(config.dtype), param_dtype=self.param_dtype)
        if self.ratio:
            self.upsample = layers.Upsampler(h, self.ratio, **options)
        if config.num_classes:
            self.embed = nn.Embed(config.num_classes, h, **options)
        elif config.condition_vector:
            self.vector = nn.Sequential([nn.Dense(h, **options), nn.relu, nn.Dense(h, **options)])
        elif config.condition_map:
            self.map = layers.Upsampler(h, 1, **options)
        inputs = channels
        if config.input == "categorical":
            inputs = channels * h
            unit = nn.initializers.normal(1.0)
            self.embed_values = nn.Embed(channels * self.levels, h, embedding_init=unit, **options)
        self.first = layers.MaskedConv(inputs, 2 * h, groups, "A", (side, side), **options)
        self.body = [self._layer(options) for _ in range(config.layers)]
        residual = layers.Residual
        if config.remat:
            residual = nn.remat(residual)
        how = config.residual, config.skip, config.dropout
        self.residual = [residual(layer, *how) for layer in self.body]
        self.head = [layers.MaskedConv(n, width, groups, **options) for n in (2 * h, width)]
        if not self.likelihood.rounded:
            options["dtype"] = options["param_dtype"]
        outputs = self.likelihood.pixel_outputs(channels)
        self.logits = layers.MaskedConv(width, outputs, groups, **options)

    def _layer(self, options: dict[str, Any]) -> layers.BodyLayer:
        config, class_ = self.config, layers.LAYERS[self.config.architecture]
        conditions = self.ratio, config.num_classes, config.condition_vector, config.condition_map
        own = {field.name for field in dataclasses.fields(class_)}
        shared = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
        fields = {name: value for name, value in shared.items() if name in own} | options
        condition = config.features if any(conditions) else 0
        return class_(mask_groups=self.mask_groups, condition=condition, **fields)

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
        x = self.first(self._inputs(values))
        skips = []
        keys = None
        for number, layer in enumerate(self.residual):
            if dropout_keys is not None:
                keys = jax.vmap(jax.random.fold_in, (0, None))(dropout_keys, number)
            x, skip = layer(x, features, keys)
            skips.append(skip)
        x = _add(x, skips)
        for conv in self.head:
            x = conv(nn.relu(x))
        outputs = self.of_channels(self.logits(nn.relu(x)), values)
        if not self.config.total:
            return outputs
        flat = values.astype(jnp.int32).reshape(-1, math.prod(self.image_shape))
        left = (self.config.total - jnp.cumsum(flat, axis=1) + flat).reshape(values.shape)
        return self.within_total(
            outputs, left, np.arange(flat.shape[1])[::-1].reshape(self.image_shape)
        )

    def within_total(self, outputs: Array, left: Array, rest: ArrayLike) -> Array:
        """Applies `model.total` to outputs: see `Softmax.within_total`."""
        likelihood = self.likelihood
        assert isinstance(likelihood, Softmax)  # `PixelRNN` refuses a total for others.
        return likelihood.within_total(outputs, left, rest)

    def _inputs(self, values: Array) -> Array:
        """Maps values, `[..., C]`, to the inputs of the first convolution, C groups of features."""
        if self.config.input == "scalar":
            return self.likelihood.inputs(values, self.param_dtype)
        channels = values.shape[-1]
        first = np.arange(channels, dtype=np.int32) * self.levels
        rows = values.astype(jnp.int32) + first.reshape((1,) * (values.ndim - 1) + (-1,))
        features = channels * self.embed_values.features
        return self.embed_values(rows).reshape(*values.shape[:-1], features)

    def embed_condition(self, condition: Array | None, coarse: Array | None) -> Array | None:
        """Maps the condition to the body layers': `[B, H, W, h]`, `[B, 1, 1, h]` or None."""
        terms = []
        if self.ratio:
            terms.append(self.upsample(self._inputs(jnp.asarray(coarse))))
        if self.config.num_classes:
            terms.append(self.embed(condition)[:, None, None])
        elif self.config.condition_vector:
            terms.append(self.vector(condition)[:, None, None])
        elif self.config.condition_map:
            terms.append(self.map(jnp.asarray(condition)))
        return sum(terms[1:], start=terms[0]) if terms else None

    def contexts(self, features: Array | None, row: ArrayLike) -> Sequence[Context | None]:
        """Returns the context of each body layer in a row of the `features`, `[B, H, W, h]`."""
        here = None if features is None else features[:, row]
        return [None if here is None else layer.context(here) for layer in self.body]

    def init_state(self, batch: int) -> State:
        """Returns the state of the incremental form (see `layers.BodyLayer`) before the first row.

        Each pixel takes `mask_groups` steps from the same state: the first gives the outputs of
        channel 0; given that value, the second gives channel 1's outputs; and so on. `end_pixel`
        completes the state of the last step, and `end_row` follows the last pixel of a row.
        """
        width = self.image_shape[1]
        return {
            "first": self.first.init_state(batch, width),
            "body": [layer.init_state(batch, width) for layer in self.body],
        }

    def step(
        self, state: State, pixel: Array, column: ArrayLike, contexts: Sequence[Context | None]
    ) -> tuple[Array, State]:
        """Computes the outputs for one pixel, of `of_channels`, and the state for `end_pixel`.

        The pixel has `[B, C]` values. The outputs of a channel depend on earlier ones alone, so
        that the others may hold any value. `contexts` belong to its row.
        """
        x, first = self.first.step(state["first"], self._inputs(pixel), column)
        skips, body = [], []
        for i, layer in enumerate(self.residual):
            (x, skip), after = layer.step(state["body"][i], x, column, contexts[i])
            skips.append(skip)
            body.append(after)
        x = _add(x, skips)
        for conv in (*self.head, self.logits):
            x, _ = conv.step({}, nn.relu(x), column)
        return x, {"first": first, "body": body}

    def end_pixel(self, state: State, pixel: Array, column: ArrayLike) -> State:
        """Adds the last channel of a pixel, `[B, C]`, to the state after the pixel's last step.

        Only the first convolution needs it: after mask A nothing of this pixel depends on it.
        """
        return state | {"first": self.first.remember(state["first"], self._inputs(pixel), column)}

    def end_row(self, state: State, contexts: Sequence[Context | None]) -> State:
        """Moves on to the next row; `contexts` belong to the row that ends."""
        rows = zip(self.body, state["body"], contexts, strict=True)
        body = [layer.end_row(layer_state, context) for layer, layer_state, context in rows]
        return {"first": self.first.end_row(state["first"]), "body": body}

    def of_channels(self, x: Array, values: Array) -> Array:
        """Splits the outputs for pixels by channels, `[..., C, Q]`; see `given_earlier`."""
        # The loss is never computed in less than float32.
        return self.likelihood.given_earlier(x.astype(self.param_dtype), values)


def _add(x: Array, skips: list[Array | None]) -> Array:
    return sum((skip for skip in skips if skip is not None), start=x)
