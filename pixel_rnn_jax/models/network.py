"""The network of one scale: PixelCNN, Row LSTM or Diagonal BiLSTM by its body layer (table 1)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax import kernels
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.layers import (
    DiagonalBiLSTM,
    MaskedConv,
    PixelCNNLayer,
    Residual,
    RowLSTM,
    Upsampler,
)
from pixel_rnn_jax.layers.state import Context, State
from pixel_rnn_jax.models import likelihoods
from pixel_rnn_jax.models.likelihoods import Likelihood

CPU_PACK = 4
"""Images per lane of a Diagonal BiLSTM on a CPU, where a longer scan of fuller lines is faster; and
how many times as many images as PixelCNN a recurrent model computes at a time."""


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

    Attributes:
        config: The architecture.
        image_shape: (H, W, C).
        levels: K.
        ratio: How many times as high and wide as the small image the images are; 0 without one.
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int
    ratio: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config.dtype != jax.dtypes.canonicalize_dtype(self.config.dtype):
            raise UserError('model.dtype "float64" needs jax_enable_x64: set JAX_ENABLE_X64=1')
        channels = self.image_shape[-1]
        for field in ("features", "head_features"):
            width = getattr(self.config, field)
            if width < channels:
                raise UserError(
                    f"model.{field} is {width}, but images of {channels} channels need at least "
                    f"{channels}: one feature group for each channel"
                )

    @property
    def likelihood(self) -> Likelihood:
        """What the outputs mean."""
        return likelihoods.of(self.config, self.levels)

    @property
    def param_dtype(self) -> np.dtype:
        """The type of parameters, outputs and random numbers: at least float32."""
        return jnp.promote_types(self.config.dtype, jnp.float32)

    def setup(self) -> None:
        """Declares the parameters (Linen calls it)."""
        config, channels = self.config, self.image_shape[-1]
        options: dict[str, Any] = {
            "dtype": jnp.dtype(config.dtype),
            "param_dtype": self.param_dtype,
        }
        h, width, side = config.features, config.head_features, config.first_kernel
        condition = 0
        if self.ratio:
            condition, self.upsample = h, Upsampler(h, self.ratio, **options)
        if config.num_classes:
            condition, self.embed = h, nn.Embed(config.num_classes, h, **options)
        elif config.condition_vector:
            condition = h
            self.vector = nn.Sequential([nn.Dense(h, **options), nn.relu, nn.Dense(h, **options)])
        elif config.condition_map:
            condition, self.map = h, Upsampler(h, 1, **options)
        inputs = channels
        if config.input == "categorical":
            inputs = channels * h
            unit = nn.initializers.normal(1.0)
            self.embed_values = nn.Embed(channels * self.levels, h, embedding_init=unit, **options)
        self.first = MaskedConv(inputs, 2 * h, channels, "A", kernel_size=(side, side), **options)
        self.body = [self._layer(options | {"condition": condition}) for _ in range(config.layers)]
        residual = nn.remat(Residual, static_argnums=2) if config.remat else Residual
        self.residual = [
            residual(layer, channels, config.residual, config.skip, **options)
            for layer in self.body
        ]
        self.head = [MaskedConv(inputs, width, channels, **options) for inputs in (2 * h, width)]
        if config.output != "softmax":  # Means and widths need the full precision.
            options["dtype"] = options["param_dtype"]
        self.logits = MaskedConv(width, channels * self.likelihood.outputs, channels, **options)

    def _layer(self, options: dict[str, Any]) -> nn.Module:
        config, channels = self.config, self.image_shape[-1]
        match config.architecture:
            case "pixel_cnn":
                return PixelCNNLayer(config.features, channels, config.kernel, **options)
            case "row_lstm":
                return RowLSTM(config.features, channels, config.kernel, **options)
            case "diagonal_bilstm":
                pack = config.images_per_lane or (CPU_PACK if jax.default_backend() == "cpu" else 1)
                return DiagonalBiLSTM(config.features, channels, pack, **options)
        raise AssertionError(config.architecture)

    def __call__(
        self, values: Array, condition: Array | None = None, coarse: Array | None = None
    ) -> Array:
        """Computes the outputs of every value at once, `[B, H, W, C, Q]`: see `likelihood`.

        Args:
            values: `[B, H, W, C]` as the likelihood takes them.
            condition: `[B]` classes, `[B, D]` vectors or `[B, H, W, D]` maps, if the config has
                any.
            coarse: `[B, H / ratio, W / ratio, C]`, the values of the small image, if there is one.
        """
        features = self.features(condition, coarse)
        size, side = self.image_shape[:2], self.config.first_kernel // 2
        first, strip = kernels.Strip(*size, side, side), kernels.Strip(*size, *self.body[0].reach)
        x = self.first(first.lay(jnp.moveaxis(self._inputs(values), -1, 0)), first)
        x = strip.lay(first.lift(x))
        skips = []
        for layer in self.residual:
            x, skip = layer(x, strip, features)
            skips.append(skip)
        x = _add(x, skips)
        for conv in self.head:
            x = conv(nn.relu(x), strip)
        x = strip.lift_last(self.logits(nn.relu(x), strip, to_features_last=True))
        return self._split_values(x)

    def _inputs(self, values: Array) -> Array:
        """Maps values, `[..., C]`, to what the first convolution takes, C groups of features."""
        if self.config.input == "scalar":
            return self.likelihood.inputs(values, self.param_dtype)
        channels = values.shape[-1]
        first = np.arange(channels, dtype=np.int32) * self.levels
        rows = values.astype(jnp.int32) + first.reshape((1,) * (values.ndim - 1) + (-1,))
        features = channels * self.embed_values.features
        return self.embed_values(rows).reshape(*values.shape[:-1], features)

    def features(self, condition: Array | None, coarse: Array | None) -> Array | None:
        """Maps the condition to what the body layers get: `[B, H, W, h]`, `[B, 1, 1, h]` or None.

        The arguments are those of `__call__`.
        """
        parts = []
        if self.ratio:
            parts.append(self.upsample(self._inputs(jnp.asarray(coarse))))
        if self.config.num_classes:
            parts.append(self.embed(condition)[:, None, None])
        elif self.config.condition_vector:
            parts.append(self.vector(condition)[:, None, None])
        elif self.config.condition_map:
            parts.append(self.map(jnp.asarray(condition)))
        return sum(parts[1:], start=parts[0]) if parts else None

    def contexts(self, features: Array | None) -> Sequence[Context | None]:
        """Maps the `features` of a row, `[B, W, h]`, to the context of each body layer."""
        return [None if features is None else layer.context(features) for layer in self.residual]

    def init_state(self, batch: int) -> State:
        """Returns the state of the incremental form (see `layers/state.py`) before the first row.

        Each pixel takes C steps from the same state: the first gives the outputs of channel 0; with
        that value, the second gives those of channel 1; and so on. `end_pixel` completes the state
        of the last step, and `end_row` follows the last pixel of a row.
        """
        width = self.image_shape[1]
        return {
            "first": self.first.init_state(batch, width),
            "body": [layer.init_state(batch, width) for layer in self.residual],
        }

    def step(
        self,
        state: State,
        pixel: Array,
        column: ArrayLike,
        contexts: Sequence[Context | None],
    ) -> tuple[Array, State]:
        """Computes the outputs of one pixel, `[B, C, Q]`, and the state for `end_pixel`.

        Args:
            state: After all pixels before it.
            pixel: `[B, C]` values. The outputs of a channel depend on earlier ones alone, so that
                the others may hold any value.
            column: That of the pixel.
            contexts: Those of its row.
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
        return self._split_values(x), {"first": first, "body": body}

    def end_pixel(self, state: State, pixel: Array, column: ArrayLike) -> State:
        """Puts the last channel of a pixel, `[B, C]`, into the state that its last step gave.

        Only the first convolution needs it: after mask A nothing of this pixel depends on it.
        """
        return state | {"first": self.first.remember(state["first"], self._inputs(pixel), column)}

    def end_row(self, state: State, contexts: Sequence[Context | None]) -> State:
        """Moves on to the next row; `contexts` are those of the row that ends."""
        body = [
            layer.end_row(*arguments)
            for layer, *arguments in zip(self.residual, state["body"], contexts, strict=True)
        ]
        return {"first": self.first.end_row(state["first"]), "body": body}

    def _split_values(self, x: Array) -> Array:
        x = x.reshape(*x.shape[:-1], self.image_shape[-1], self.likelihood.outputs)
        # The loss is never computed in less than float32.
        return x.astype(self.param_dtype)


def _add(x: Array, skips: list[Array | None]) -> Array:
    return sum((skip for skip in skips if skip is not None), start=x)
