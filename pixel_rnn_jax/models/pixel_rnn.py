"""PixelCNN, Row LSTM and Diagonal BiLSTM: one model, its body layer chosen by name (table 1)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.layers import DiagonalBiLSTM, MaskedConv, PixelCNNLayer, Residual, RowLSTM
from pixel_rnn_jax.likelihoods import logits_per_value

CPU_PACK = 4
"""Images per lane of a Diagonal BiLSTM on a CPU: see benchmarks/."""


class PixelRNN(nn.Module):
    """The distribution of each value of an image given all that come before it.

    A k x k convolution with mask A, body layers over a stream of 2h features, and a head: (ReLU,
    1x1 with mask B) twice, ReLU, 1x1 with mask B to the logits. The linear map of the softmax
    layer has a ReLU before it, since two linear maps in a row would be one.

    Attributes:
        config: the architecture.
        image_shape: (H, W, C).
        levels: K.
    """

    config: ModelConfig
    image_shape: tuple[int, int, int]
    levels: int

    def __post_init__(self) -> None:
        super().__post_init__()
        channels = self.image_shape[-1]
        for field in ("features", "head_features"):
            width = getattr(self.config, field)
            if width < channels:
                raise UserError(
                    f"model.{field} is {width}, but images of {channels} channels need at least "
                    f"{channels}: one feature group for each channel"
                )

    @nn.compact
    def __call__(self, inputs: Array, context: tuple[Array | None, ...] | None = None) -> Array:
        """Computes the logits of every value at once.

        Args:
            inputs: `[B, H, W, C]` floats from `likelihoods.scale`.
            context: for each body layer a bias of its gates (4h wide; h for PixelCNN), or None.

        Returns:
            `[B, H, W, C, K]` logits; for K = 2 one logit of the value 1, `[B, H, W, C, 1]`.
        """
        config, channels = self.config, self.image_shape[-1]
        dtype = jnp.dtype(config.dtype)
        dtypes: dict[str, Any] = {
            "dtype": dtype,
            "param_dtype": jnp.promote_types(dtype, jnp.float32),
        }
        first = (config.first_kernel, config.first_kernel)
        x = MaskedConv(
            2 * config.features, channels, "A", kernel_size=first, name="first", **dtypes
        )(inputs)
        skips = []
        body = nn.remat(Residual) if config.remat else Residual
        for i in range(config.layers):
            layer = self._layer(len(inputs), {"name": f"body_{i}", **dtypes})
            bias = None if context is None else context[i]
            x, skip = body(
                layer, channels, config.residual, config.skip, name=f"residual_{i}", **dtypes
            )(x, bias)
            skips.append(skip)
        x = sum((skip for skip in skips if skip is not None), start=x)
        for i in range(2):
            x = MaskedConv(config.head_features, channels, name=f"head_{i}", **dtypes)(nn.relu(x))
        values = logits_per_value(self.levels)
        x = MaskedConv(channels * values, channels, name="logits", **dtypes)(nn.relu(x))
        x = x.reshape(*x.shape[:-1], channels, values)
        return x.astype(dtypes["param_dtype"])  # The loss is never in less than float32.

    def _layer(self, batch: int, options: dict[str, Any]) -> nn.Module:
        config, channels = self.config, self.image_shape[-1]
        match config.architecture:
            case "pixel_cnn":
                return PixelCNNLayer(config.features, channels, config.kernel, **options)
            case "row_lstm":
                return RowLSTM(config.features, channels, config.kernel, **options)
            case "diagonal_bilstm":
                return DiagonalBiLSTM(config.features, channels, self._pack(batch), **options)
        raise AssertionError(config.architecture)

    def _pack(self, batch: int) -> int:
        """The largest divisor of the batch that is no more than what is asked for."""
        most = self.config.pack or (CPU_PACK if jax.default_backend() == "cpu" else 1)
        return max(size for size in range(1, min(most, batch) + 1) if batch % size == 0)
