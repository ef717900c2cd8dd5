"""A body of equal layers with residual and skip connections (section 3.3, figure 5)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import ArrayLike, DTypeLike

from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.layers.body import Body, Context, Layer, State
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv


class Residual(nn.Module):
    """Adds the output of a layer to the stream.

    A 1x1 convolution with mask B takes the h features of the layer to the 2h of the stream and, as
    a second block of the same matmul, to the 2h of the skip connection.

    The other fields are `ModelConfig`'s.
    """

    features: int
    mask_groups: int
    number: int = 0  # Of the layer, which has its own draws of dropout.
    residual: bool = True
    skip: bool = True
    dropout: float = 0.0
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        h, blocks = self.features, 2 if self.skip else 1
        types: Any = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        self.expand = MaskedConv(h, 2 * h, self.mask_groups, blocks=blocks, **types)

    def __call__(
        self, x: Array, out: Array, keys: Array | None = None
    ) -> tuple[Array, Array | None]:
        """Returns the stream after the layer and the skip connection, `[..., 2h]` like x.

        `keys` has one for each image, `[B]`, if there is dropout: what is zeroed in an image does
        not depend on the others of its batch.
        """
        if keys is not None and self.dropout:
            keys = jax.vmap(jax.random.fold_in, (0, None))(keys, self.number)
            # 16 bits are half as many to draw as for a float32.
            bits = jax.vmap(lambda key: jax.random.bits(key, out.shape[1:], jnp.uint16))(keys)
            dropped = round(self.dropout * 2**16)
            out = jnp.where(bits >= dropped, out / (1 - dropped / 2**16), 0)
        out, _ = self.expand.step({}, out, 0)
        stream, skip = jnp.split(out, 2, axis=-1) if self.skip else (out, None)
        return (x + stream if self.residual else stream), skip


class Stack(Body):
    """Layers of one kind, one after the other.

    Attributes:
        layer: The class of the layers, or a partial of it.
        config: The `ModelConfig`: number of layers, connections, dropout, remat, and the fields of
            the layers that have the names of its own.
    """

    layer: Callable[..., Layer] | None = None
    config: ModelConfig = ModelConfig()

    def setup(self) -> None:
        config, sizes = self.config, (self.features, self.mask_groups)
        self.body = [
            of_config(self.layer, config, *sizes, self.condition, **self.dtypes)
            for _ in range(config.layers)
        ]
        self.residual = [
            of_config(Residual, config, *sizes, number, **self.dtypes)
            for number in range(config.layers)
        ]

    def __call__(
        self, x: Array, condition: Array | None = None, dropout_keys: Array | None = None
    ) -> Array:
        skips = []
        for i in range(self.config.layers):

            def block(stack: Stack, x: Array, *rest: Any, i: int = i) -> Any:
                condition, keys = rest
                return stack.residual[i](x, stack.body[i](x, condition), keys)

            block = nn.remat(block) if self.config.remat else block
            x, skip = block(self, x, condition, dropout_keys)
            skips.append(skip)
        return add_skips(x, skips)

    def context(self, condition: Array) -> Context:
        return [layer.context(condition) for layer in self.body]

    def init_state(self, batch: int, height: int, width: int) -> State:
        return [layer.init_state(batch, height, width) for layer in self.body]

    def step(
        self, state: State, x: Array, column: ArrayLike, context: Context | None = None
    ) -> tuple[Array, State]:
        skips, states = [], []
        for i, (layer, residual) in enumerate(zip(self.body, self.residual, strict=True)):
            out, after = layer.step(state[i], x, column, None if context is None else context[i])
            x, skip = residual(x, out)
            skips.append(skip)
            states.append(after)
        return add_skips(x, skips), states

    def end_row(self, state: State, context: Context | None = None) -> State:
        contexts = [None] * len(self.body) if context is None else context
        return [
            layer.end_row(*each) for layer, *each in zip(self.body, state, contexts, strict=True)
        ]


def of_config(class_: Any, config: ModelConfig, *arguments: Any, **fields: Any) -> Any:
    """Makes a module; fields that have the names of `config`'s take their values from there.

    `class_` is the class or a partial of it, whose own arguments come before the config's.
    """
    kind, given = getattr(class_, "func", class_), getattr(class_, "keywords", {})
    own = {field.name for field in dataclasses.fields(kind)} - {"features", "condition", "dtype"}
    values = {"config": config} | {
        f.name: getattr(config, f.name) for f in dataclasses.fields(config)
    }
    values = {name: value for name, value in values.items() if name in own and name not in given}
    return class_(*arguments, **values, **fields)


def add_skips(x: Array, skips: list[Array | None]) -> Array:
    """Adds the skip connections of all layers to the stream."""
    return sum((skip for skip in skips if skip is not None), start=x)
