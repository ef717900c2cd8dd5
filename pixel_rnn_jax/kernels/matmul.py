"""Matrix products whose operands are rounded to fewer digits than their sums."""

import jax
from jax import Array, lax
from jax.typing import DTypeLike

from pixel_rnn_jax.kernels.varying import varying_alike


def matmul(x: Array, y: Array, dtype: DTypeLike) -> Array:
    """Returns the product of x, `[..., K]`, and y, `[K, N]`, in their own type: `[..., N]`.

    The operands are rounded to `dtype`, here and in the products of the gradient, and the sums are
    not: with bfloat16 what is called mixed precision. The transpose of `lax.dot_general` would
    multiply in the type of the sums instead.
    """
    if x.dtype == dtype:
        return lax.dot_general(x, y, (((x.ndim - 1,), (0,)), ((), ())))
    if x.ndim > 2:
        flat = matmul(x.reshape(-1, x.shape[-1]), y, dtype)
        return flat.reshape(*x.shape[:-1], -1)
    sums = x.dtype

    def forward(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
        x, y = x.astype(dtype), y.astype(dtype)
        return rounded_dot(x, y, (1, 0), sums), (x, y)

    def backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        (x, y), g = operands, gradient.astype(dtype)
        return rounded_dot(g, y, (1, 1), sums), rounded_dot(x, g, (0, 0), sums)

    run = jax.custom_vjp(lambda x, y: forward(x, y)[0])
    run.defvjp(forward, backward)
    return run(*varying_alike((x, y), (x, y)))


def rounded_dot(x: Array, y: Array, axes: tuple[int, int], sums: DTypeLike) -> Array:
    """Returns the product of two matrices over an axis of each, with sums of another type."""
    contracted = (axes[:1], axes[1:])
    return lax.dot_general(x, y, (contracted, ((), ())), preferred_element_type=sums)
