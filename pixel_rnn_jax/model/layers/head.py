"""The head of a network (table 1)."""

from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax.model.layers.masked_conv import MaskedConv


class Head(nn.Module):
    """ReLU and a 1x1 convolution with mask B, three times: to head features twice, to the outputs.

    The last convolution has a ReLU before it as well, since two linear maps in a row would be one.
    A head is pointwise, `[..., 2h]` to `[..., outputs]`; outputs of group g depend on features of
    groups up to g: see `channel_mask`.

    Attributes:
        features: h.
        head_features: `ModelConfig`'s.
        outputs: The number of outputs for a pixel, in `mask_groups` groups.
        last_dtype: Type of the operands of the last product.
    """

    features: int
    mask_groups: int
    outputs: int
    head_features: int = 32
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32
    last_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        types: dict[str, Any] = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        width, groups = self.head_features, self.mask_groups
        self.head = [MaskedConv(n, width, groups, **types) for n in (2 * self.features, width)]
        self.logits = MaskedConv(width, self.outputs, groups, **types | {"dtype": self.last_dtype})

    def __call__(self, x: Array) -> Array:
        for conv in (*self.head, self.logits):
            x = conv(nn.relu(x))
        return x
