"""The network of one scale: PixelCNN, Row LSTM or Diagonal BiLSTM by its body layer (table 1)."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
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

    The network may be conditioned on a smaller image (section 3.6), on a class, or on both: every
    body layer adds an unmasked 1x1 map of the condition, h features, to its input-to-state map. The
    condition is the upsampled small image, an embedding of the class, or their sum.

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

    def setup(self) -> None:
        """Declares the parameters (Linen calls it)."""
        config, channels = self.config, self.image_shape[-1]
        dtype = jnp.dtype(config.dtype)
        options: dict[str, Any] = {
            "dtype": dtype,
            "param_dtype": jnp.promote_types(dtype, jnp.float32),
        }
        h, width, side = config.features, config.head_features, config.first_kernel
        condition = 0
        if self.ratio:
            condition, self.upsample = h, Upsampler(h, self.ratio, **options)
        if config.classes:
            condition, self.embed = h, nn.Embed(config.classes, h, **options)
        self.first = MaskedConv(channels, 2 * h, channels, "A", kernel_size=(side, side), **options)
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
                pack = config.pack or (CPU_PACK if jax.default_backend() == "cpu" else 1)
                return DiagonalBiLSTM(config.features, channels, pack, **options)
        raise AssertionError(config.architecture)

    def __call__(
        self, inputs: Array, labels: Array | None = None, coarse: Array | None = None
    ) -> Array:
        """Computes the outputs of every value at once, `[B, H, W, C, Q]`: see `likelihood`.

        Args:
            inputs: `[B, H, W, C]` floats from `likelihood.inputs`.
            labels: `[B]` classes, if the config has any.
            coarse: `[B, H / ratio, W / ratio, C]`, the inputs of the small image, if there is one.
        """
        condition = self.condition(labels, coarse)
        size, side = self.image_shape[:2], self.config.first_kernel // 2
        first, strip = kernels.Strip(*size, side, side), kernels.Strip(*size, *self.body[0].reach)
        x = self.first(first.lay(jnp.moveaxis(inputs, -1, 0)), first)
        x = strip.lay(first.lift(x))
        skips = []
        for layer in self.residual:
            x, skip = layer(x, strip, condition)
            skips.append(skip)
        x = _add(x, skips)
        for conv in self.head:
            x = conv(nn.relu(x), strip)
        x = strip.lift_last(self.logits(nn.relu(x), strip, to_features_last=True))
        return self._split_values(x)

    def condition(self, labels: Array | None, coarse: Array | None) -> Array | None:
        """Returns what the body layers are conditioned on: `[B, H, W, h]`, `[B, 1, 1, h]` or None.

        The arguments are those of `__call__`.
        """
        parts = []
        if self.ratio:
            parts.append(self.upsample(jnp.asarray(coarse)))
        if self.config.classes:
            parts.append(self.embed(jnp.asarray(labels))[:, None, None])
        return sum(parts[1:], start=parts[0]) if parts else None

    def contexts(self, condition: Array | None) -> Sequence[Context | None]:
        """Maps the condition of a row, `[B, W, h]`, to the context of each body layer."""
        return [None if condition is None else layer.context(condition) for layer in self.residual]

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
            pixel: `[B, C]` inputs. The outputs of a channel depend on earlier ones alone, so that
                the others may hold any finite number.
            column: That of the pixel.
            contexts: Those of its row.
        """
        x, first = self.first.step(state["first"], pixel, column)
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
        return state | {"first": self.first.remember(state["first"], pixel, column)}

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
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _add(x: Array, skips: list[Array | None]) -> Array:
    return sum((skip for skip in skips if skip is not None), start=x)
