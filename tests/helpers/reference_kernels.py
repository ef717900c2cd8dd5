"""The paper's recurrences as plain NumPy loops, one pixel at a time, and the comparison with them.

They are written from eq. 3 and section 3 and share nothing with the package. Every one takes
complex arrays as well, so that `directional_derivative` gets derivatives from the complex step:
exact to rounding, and without any automatic differentiation.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

FEATURES = 2


def random_arguments(rng, *shape, taps):
    """Gates `[*shape, 4F]`, kernel, h0 and c0."""
    return (
        rng.normal(size=(*shape, 4 * FEATURES)),
        rng.normal(size=(taps, FEATURES, 4 * FEATURES)),
        rng.normal(size=FEATURES),
        rng.normal(size=FEATURES),
    )


def values_and_gradients(function):
    def run(cotangent, *arguments):
        values, vjp = jax.vjp(function, *arguments)
        return values, vjp(cotangent)

    return run


def assert_agree(function, loop, arguments, rng):
    """Compares values, and vector-Jacobian products along a random direction, in float64.

    That is argument by argument: an error in any one entry of a gradient moves the number.
    """
    expected = loop(*arguments)
    cotangent = rng.normal(size=expected.shape)
    run = jax.jit(values_and_gradients(function))
    values, gradients = run(*map(jnp.asarray, (cotangent, *arguments)))
    assert values.dtype == jnp.float64
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    for n, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        assert gradient.shape == argument.shape
        directions = [np.zeros_like(a) for a in arguments]
        directions[n] = rng.normal(size=argument.shape)
        slope = directional_derivative(loop, arguments, directions)
        found, exact = np.sum(gradient * directions[n]), np.sum(cotangent * slope)
        message = f"gradient of argument {n}"
        np.testing.assert_allclose(found, exact, rtol=1e-11, atol=1e-11, err_msg=message)


def assert_precise(run, exact, tolerance):
    """Compares values and gradients in float32 and bfloat16 with exact ones, in float64."""
    for dtype, rtol in ((jnp.float32, tolerance), (jnp.bfloat16, 5e-2)):
        # Rounded first, so that the exact answer is the one for the numbers of the kernel.
        inputs = cotangent, gates, *state = [jnp.asarray(x, dtype) for x in exact]
        expected = jax.tree.leaves(run(*(x.astype(jnp.float64) for x in inputs)))
        for x, y in zip(jax.tree.leaves(run(*inputs)), expected, strict=True):
            assert x.dtype == dtype
            assert np.abs(x.astype(jnp.float64) - y).max() <= rtol * np.abs(y).max()
        # Gates and states beyond what the activations tell apart.
        saturated = cotangent, 1e4 * jnp.sign(gates), *(1e4 * x for x in state)
        for x in jax.tree.leaves(run(*saturated)):
            assert x.dtype == dtype and np.isfinite(x.astype(jnp.float64)).all()


def cell(gates: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eq. 3 for gates `[4F]` in the order o, f, i, g and a cell state `[F]`."""
    o, f, i, g = np.split(gates, 4)
    o, f, i = _sigmoid(o), _sigmoid(f), _sigmoid(i)
    c = f * c + i * np.tanh(g)
    return o * np.tanh(c), c


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def conv_lstm(
    gates: np.ndarray,
    kernel: np.ndarray,
    h0: np.ndarray,
    c0: np.ndarray,
    *,
    taps: Sequence[int],
    restart: np.ndarray | None = None,
    rounded: Callable[[np.ndarray], np.ndarray] = np.asarray,
) -> np.ndarray:
    """The recurrence over gates `[T, P, L, 4F]`, one position of one lane at a time.

    `rounded` is applied to both operands of each product.
    """
    steps, positions, lanes, _ = gates.shape
    kind = np.result_type(gates, kernel, h0, c0)
    h = np.zeros((steps, positions, lanes, len(h0)), kind)
    c = np.zeros_like(h)
    for t in range(steps):
        for p in range(positions):
            again = restart is not None and restart[t, p]
            for lane in range(lanes):
                z = gates[t, p, lane]
                for tap, weight in zip(taps, kernel, strict=True):
                    if tap == 0 and again:
                        z = z + rounded(h0) @ rounded(weight)
                    elif 0 <= p + tap < positions:
                        before = h[t - 1, p + tap, lane] if t > 0 else h0
                        z = z + rounded(before) @ rounded(weight)
                before = c0 if t == 0 or again else c[t - 1, p, lane]
                h[t, p, lane], c[t, p, lane] = cell(z, before)
    return h


def diagonal_lstm(
    gates: np.ndarray, own: np.ndarray, above: np.ndarray, h0: np.ndarray, c0: np.ndarray
) -> np.ndarray:
    """One direction of the Diagonal BiLSTM over gates `[B, H, W, 4F]`, in raster order.

    A pixel hears its left neighbour through `own` and the pixel above through `above`, both
    `[F, 4F]`. Left of the first column lies the initial state, above the first row zero.
    """
    batch, height, width, _ = gates.shape
    h = np.zeros((batch, height, width, len(h0)), np.result_type(gates, own, above, h0, c0))
    c = np.zeros_like(h)
    for b in range(batch):
        for row in range(height):
            for column in range(width):
                left_h = h[b, row, column - 1] if column > 0 else h0
                left_c = c[b, row, column - 1] if column > 0 else c0
                z = gates[b, row, column] + left_h @ own
                if row > 0:
                    z = z + h[b, row - 1, column] @ above
                h[b, row, column], c[b, row, column] = cell(z, left_c)
    return h


def row_lstm(gates: np.ndarray, kernel: np.ndarray, h0: np.ndarray, c0: np.ndarray) -> np.ndarray:
    """The Row LSTM over gates `[B, H, W, 4F]` with a centred kernel `[k, F, 4F]`, row by row."""
    half = len(kernel) // 2
    h = conv_lstm(gates.transpose(1, 2, 0, 3), kernel, h0, c0, taps=range(-half, half + 1))
    return h.transpose(2, 0, 1, 3)


def linear_sweep(gates: np.ndarray) -> np.ndarray:
    """States to the right, h, and down, 2h, of gates `[B, H, W, 6h]`, one pixel at a time."""
    (batch, height, width, blocks), h = gates.shape, gates.shape[-1] // 6
    assert blocks == 6 * h
    a, u = (1 + np.tanh(gates[..., : 4 * h])) / 2, np.tanh(gates[..., 4 * h :])
    rows, down = np.zeros_like(u), np.zeros_like(u)

    def step(a: np.ndarray, u: np.ndarray, before: np.ndarray | int) -> np.ndarray:
        return a * before + (1 - a) * u

    for b, r, c in np.ndindex(batch, height, width):
        left = width - 1 - c
        for part, at, before in (slice(0, h), c, c - 1), (slice(h, 2 * h), left, left + 1):
            state = rows[b, r, before, part] if c else 0
            rows[b, r, at, part] = step(a[b, r, at, part], u[b, r, at, part], state)
    for b, r, c in np.ndindex(batch, height, width):
        state = down[b, r - 1, c] if r else 0
        down[b, r, c] = step(a[b, r, c, 2 * h :], rows[b, r, c], state)
    return np.concatenate([rows[..., :h], down], axis=-1)


def directional_derivative(
    function: Callable[..., np.ndarray],
    arguments: Sequence[np.ndarray],
    directions: Sequence[np.ndarray],
) -> np.ndarray:
    """The derivative of `function` at `arguments` along `directions`, by the complex step."""
    step = 1e-30  # There is no subtraction, so it can be small enough to leave no error at all.
    moved = [a + 1j * step * d for a, d in zip(arguments, directions, strict=True)]
    return function(*moved).imag / step
