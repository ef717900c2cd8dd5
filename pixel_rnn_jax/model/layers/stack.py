"""Bodies of numbered blocks with residual and skip connections (section 3.3, figure 5)."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pixel_rnn_jax.model.layers.body import Body, Context, Layer, Position, State
from pixel_rnn_jax.model.layers.masked_conv import MaskedConv

Block = Callable[[Any, int, Array, Any], tuple[Array, Any]]
"""Maps (module, number, stream, carry) to the block's h features and the carry."""


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
        out = self.expand(out)
        stream, skip = jnp.split(out, 2, axis=-1) if self.skip else (out, None)
        return (x + stream if self.residual else stream), skip


class ResidualBody(Body):
    """A body of blocks of h features, each with residual and skip connections.

    A subclass calls `super().setup()`, and `connect` in both forms. The fields are `ModelConfig`'s.
    """

    layers: int = 7
    residual: bool = True
    skip: bool = True
    dropout: float = 0.0
    remat: bool = False

    def setup(self) -> None:
        fields = dict(residual=self.residual, skip=self.skip, dropout=self.dropout, **self.dtypes)
        self.connections = [
            Residual(self.features, self.mask_groups, i, name=f"residual_{i}", **fields)
            for i in range(self.layers)
        ]

    def connect(
        self, block: Block, x: Array, carry: Any, keys: Array | None = None, *, remat: bool = False
    ) -> tuple[Array, Any]:
        """Runs `block` for each number; returns the last stream plus all skips, and the carry."""
        skips = []
        for number in range(self.layers):

            def connected(body: Any, x: Array, carry: Any, keys: Any, i: int = number) -> Any:
                out, carry = block(body, i, x, carry)
                return *body.connections[i](x, out, keys), carry

            run = nn.remat(connected) if remat else connected
            x, skip, carry = run(self, x, carry, keys)
            skips.append(skip)
        return sum((skip for skip in skips if skip is not None), start=x), carry


class Stack(ResidualBody):
    """Layers of one kind, one after the other; `layer` is their class, or a partial of it."""

    layer: Callable[..., Layer] | None = None

    @property
    def recurrent(self) -> bool:  # type: ignore[override]
        """Whether the layers scan the images."""
        layer: Any = self.layer
        return bool(getattr(layer, "func", layer).recurrent)

    @property
    def narrow(self) -> bool:  # type: ignore[override]
        """Whether the layers step by the first groups."""
        layer: Any = self.layer
        return bool(getattr(layer, "func", layer).narrow)

    def setup(self) -> None:
        super().setup()
        layer: Any = self.layer
        sizes = self.features, self.mask_groups, self.condition
        self.body = [layer(*sizes, **self.dtypes) for _ in range(self.layers)]

    def __call__(
        self, x: Array, condition: Array | None = None, dropout_keys: Array | None = None
    ) -> Array:
        def block(stack: Stack, i: int, x: Array, condition: Any) -> tuple[Array, Any]:
            return stack.body[i](x, condition), condition

        return self.connect(block, x, condition, dropout_keys, remat=self.remat)[0]

    def context(self, condition: Array) -> Context:
        return [layer.context(condition) for layer in self.body]

    def init_state(self, batch: int, height: int, width: int) -> State:
        return [layer.init_state(batch, height, width) for layer in self.body]

    def step(
        self, state: State, x: Array, position: Position, context: Context | None = None
    ) -> tuple[Array, State]:
        def block(stack: Stack, i: int, x: Array, after: list[State]) -> tuple[Array, Any]:
            own = None if context is None else context[i]
            out, new = stack.body[i].step(state[i], x, position, own)
            return out, [*after, new]

        return self.connect(block, x, [])

    def end_row(self, state: State, context: Context | None = None) -> State:
        contexts = [None] * self.layers if context is None else context
        return [
            layer.end_row(*each) for layer, *each in zip(self.body, state, contexts, strict=True)
        ]
