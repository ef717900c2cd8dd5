"""Matrix products whose operands are rounded to fewer digits than their sums."""

import jax
from jax import Array, lax
from jax.typing import DTypeLike

from pixel_rnn_jax.kernels.varying import varying_alike


def matmul(x: Array, y: Array, dtype: DTypeLike, axes: tuple[int, int] = (-1, 0)) -> Array:
    """Returns the product of x, `[M, K]` or `[..., K]`, and y, `[K, N]`, in their own type.

    The operands are rounded to `dtype`, here and in the products of the gradient, and the sums are
    not: with bfloat16 what is called mixed precision. The transpose of `lax.dot_general` would
    multiply in the type of the sums instead.

    Args:
        x: The first operand.
        y: The second, of the same type.
        dtype: Type of the operands in the product.
        axes: The axis of each operand that is summed over; others than the default are for
            matrices.
    """
    a, b = axes[0] % x.ndim, axes[1]
    if x.dtype == dtype:
        return lax.dot_general(x, y, (((a,), (b,)), ((), ())))
    if x.ndim > 2:
        flat = matmul(x.reshape(-1, x.shape[-1]), y, dtype)
        return flat.reshape(*x.shape[:-1], -1)
    sums = x.dtype

    def forward(x: Array, y: Array) -> tuple[Array, tuple[Array, Array]]:
        x, y = x.astype(dtype), y.astype(dtype)
        return rounded_dot(x, y, (a, b), sums), (x, y)

    def backward(operands: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
        (x, y), g = operands, gradient.astype(dtype)
        g_y, y_g, x_g, g_x = (1, 1 - b), (1 - b, 1), (1 - a, 0), (0, 1 - a)
        dx = rounded_dot(g, y, g_y, sums) if a else rounded_dot(y, g, y_g, sums)
        dy = rounded_dot(g, x, g_x, sums) if b else rounded_dot(x, g, x_g, sums)
        return dx, dy

    run = jax.custom_vjp(lambda x, y: forward(x, y)[0])
    run.defvjp(forward, backward)
    return run(*varying_alike((x, y), (x, y)))


def rounded_dot(x: Array, y: Array, axes: tuple[int, int], sums: DTypeLike) -> Array:
    """Returns the product of two matrices over an axis of each, with sums of another type."""
    contracted = (axes[:1], axes[1:])
    return lax.dot_general(x, y, (contracted, ((), ())), preferred_element_type=sums)
