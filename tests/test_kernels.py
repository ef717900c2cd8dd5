"""The kernels against plain loops: values and vector-Jacobian products, in float64.

A vector-Jacobian product is held against the loop's derivative along a random direction, argument
by argument: an error in any one entry of a gradient moves that number.
"""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference_kernels as loops
from jax.sharding import AxisType, PartitionSpec

from pixel_rnn_jax.kernels import cell, conv_lstm, conv_lstm_reference, restarts, skew, unskew

TAPS = [(0,), (-1, 0), (0, -1), (-1, 0, 1), (-2, -1, 0, 1, 2), (1,), (-3, 0)]
RESTARTS = ["none", "random", "first step", "every step", "diagonal"]
LINES = list(itertools.product([1, 2, 7], [1, 2, 5], [1, 3]))  # (T, P, L)
SIZES = [(1, 1), (1, 4), (4, 1), (3, 5), (5, 3)]  # (H, W)
FEATURES = 2

pytestmark = pytest.mark.usefixtures("x64")


@pytest.fixture
def eager():
    """Runs scans as Python loops: the grid is large, and every case of it would compile anew."""
    with jax.disable_jit():
        yield


def restart_pattern(kind, steps, positions, rng):
    if kind == "none":
        return None
    lag = np.arange(steps)[:, None] - np.arange(positions)[None, :]
    return {
        "random": rng.random((steps, positions)) < 0.4,
        "first step": np.broadcast_to(np.arange(steps)[:, None] == 0, lag.shape),
        "every step": np.ones_like(lag, bool),
        "diagonal": lag % 3 == 0,
    }[kind]


def random_arguments(rng, *shape, taps, initial="random"):
    """Gates `[*shape, 4F]`, kernel, h0 and c0."""
    size = 0.0 if initial == "zero" else 1.0
    return (
        rng.normal(size=(*shape, 4 * FEATURES)),
        rng.normal(size=(taps, FEATURES, 4 * FEATURES)),
        size * rng.normal(size=FEATURES),
        size * rng.normal(size=FEATURES),
    )


def values_and_gradients(function):
    def run(cotangent, *arguments):
        values, vjp = jax.vjp(function, *arguments)
        return values, vjp(cotangent)

    return run


def assert_agree(function, loop, arguments, rng, *, compiled=False):
    """Compares the values of two functions, and their derivatives for each argument."""
    expected = loop(*arguments)
    cotangent = rng.normal(size=expected.shape)
    run = values_and_gradients(function)
    run = jax.jit(run) if compiled else run
    values, gradients = run(*map(jnp.asarray, (cotangent, *arguments)))
    assert values.dtype == jnp.float64
    np.testing.assert_allclose(values, expected, rtol=0, atol=1e-12)
    for n, (argument, gradient) in enumerate(zip(arguments, gradients, strict=True)):
        assert gradient.shape == argument.shape
        directions = [np.zeros_like(a) for a in arguments]
        directions[n] = rng.normal(size=argument.shape)
        slope = loops.directional_derivative(loop, arguments, directions)
        np.testing.assert_allclose(
            np.sum(gradient * directions[n]),
            np.sum(cotangent * slope),
            rtol=1e-11,
            atol=1e-11,
            err_msg=f"gradient of argument {n}",
        )


def assert_is_the_loop(function, taps, kind, line, initial="random", *, compiled=False):
    rng = np.random.default_rng(0)
    options = dict(taps=taps, restart=restart_pattern(kind, *line[:2], rng))
    assert_agree(
        functools.partial(function, **options),
        functools.partial(loops.conv_lstm, **options),
        random_arguments(rng, *line, taps=len(taps), initial=initial),
        rng,
        compiled=compiled,
    )


@pytest.mark.parametrize("kind", RESTARTS)
@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_conv_lstm_is_the_loop(eager, taps, kind):
    assert_is_the_loop(conv_lstm, taps, kind, (7, 5, 3))


@pytest.mark.parametrize("line", [(1, 1, 3), (1, 5, 3), (2, 2, 1)], ids=str)
@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_conv_lstm_is_the_loop_on_short_lines(eager, taps, line):
    assert_is_the_loop(conv_lstm, taps, "diagonal", line)
    assert_is_the_loop(conv_lstm, taps, "none", line, "zero")


@pytest.mark.slow
@pytest.mark.parametrize("kind", RESTARTS)
@pytest.mark.parametrize("taps", TAPS, ids=str)
def test_conv_lstm_is_the_loop_in_every_combination(eager, taps, kind):
    for line, initial in itertools.product(LINES, ["zero", "random"]):
        assert_is_the_loop(conv_lstm, taps, kind, line, initial)


@pytest.mark.parametrize("function", [conv_lstm, conv_lstm_reference])
@pytest.mark.parametrize(
    ("taps", "kind"),
    [((-1, 0), "none"), ((-2, -1, 0, 1, 2), "random"), ((1,), "every step")],
    ids=str,
)
def test_compiled_scan_is_the_loop(function, taps, kind):
    assert_is_the_loop(function, taps, kind, (7, 5, 1), compiled=True)


@pytest.fixture(scope="module")
def diagonal_case():
    """A conv_lstm as the Diagonal BiLSTM uses it; the same with its gradients, compiled once."""
    run = functools.partial(conv_lstm, taps=(0, -1), restart=restarts(5, 3))
    return run, jax.jit(values_and_gradients(run))


def diagonal_inputs(rng):
    """A cotangent of h and the arguments of `diagonal_case`, for four lanes."""
    inputs = rng.normal(size=(7, 5, 4, FEATURES)), *random_arguments(rng, 7, 5, 4, taps=2)
    return tuple(map(jnp.asarray, inputs))


def assert_trees_close(tree, expected, tolerance=1e-12):
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance),
        tree,
        expected,
    )


def test_forward_that_saves_nothing_is_the_forward_that_saves(diagonal_case):
    run, run_with_gradients = diagonal_case
    inputs = diagonal_inputs(np.random.default_rng(2))
    assert_trees_close(jax.jit(run)(*inputs[1:]), run_with_gradients(*inputs)[0])


def test_remat(diagonal_case):
    run, run_with_gradients = diagonal_case
    inputs = diagonal_inputs(np.random.default_rng(3))
    found = jax.jit(values_and_gradients(jax.checkpoint(run)))(*inputs)
    assert_trees_close(found, run_with_gradients(*inputs))


def test_vmap_over_directions(diagonal_case):
    run, run_with_gradients = diagonal_case
    rng = np.random.default_rng(4)
    left, right = diagonal_inputs(rng), diagonal_inputs(rng)
    both = [jnp.stack(pair) for pair in zip(left, right, strict=True)]
    found = jax.jit(values_and_gradients(jax.vmap(run)))(*both)
    for n, inputs in enumerate([left, right]):
        assert_trees_close(jax.tree.map(lambda x, n=n: x[n], found), run_with_gradients(*inputs))


@pytest.mark.parametrize("gradient", ["inside", "outside"])
def test_shard_map_over_lanes(diagonal_case, gradient):
    devices = jax.devices()[:2]
    if len(devices) < 2:
        pytest.skip("needs two devices")
    mesh = jax.make_mesh((2,), ("data",), axis_types=(AxisType.Auto,), devices=devices)
    run, run_with_gradients = diagonal_case
    inputs = diagonal_inputs(np.random.default_rng(5))
    sharded, whole = PartitionSpec(None, None, "data"), PartitionSpec()
    specs = (sharded, whole, whole, whole)
    shard = functools.partial(jax.shard_map, mesh=mesh, check_vma=False)

    def per_device(*inputs):
        values, (dgates, *dparameters) = run_with_gradients(*inputs)
        return values, (dgates, *(jax.lax.psum(d, "data") for d in dparameters))

    if gradient == "inside":
        step = shard(per_device, in_specs=(sharded, *specs), out_specs=(sharded, specs))
    else:
        step = values_and_gradients(shard(run, in_specs=specs, out_specs=sharded))
    assert_trees_close(jax.jit(step)(*inputs), run_with_gradients(*inputs))


@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-5), (jnp.bfloat16, 5e-2)])
def test_lower_precision(diagonal_case, dtype, tolerance):
    _, run_with_gradients = diagonal_case
    # Round first, so that the exact answer is the one for the numbers which the kernel is given.
    inputs = [x.astype(dtype) for x in diagonal_inputs(np.random.default_rng(6))]
    found = run_with_gradients(*inputs)
    expected = run_with_gradients(*(x.astype(jnp.float64) for x in inputs))
    for x, exact in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        assert x.dtype == dtype
        error = np.abs(x.astype(jnp.float64) - exact).max()
        assert error <= tolerance * np.abs(exact).max()


def test_shapes_that_do_not_fit_are_refused():
    gates, kernel, h0, c0 = map(
        jnp.asarray, random_arguments(np.random.default_rng(7), 4, 3, 2, taps=2)
    )
    with pytest.raises(ValueError, match="kernel"):
        conv_lstm(gates, kernel, h0, c0, taps=(-1, 0, 1))
    with pytest.raises(ValueError, match="restart"):
        conv_lstm(gates, kernel, h0, c0, taps=(0, -1), restart=np.zeros((3, 4), bool))
    with pytest.raises(ValueError, match="h0, c0"):
        conv_lstm(gates, kernel, h0, c0[:1], taps=(0, -1))


def test_restarts_of_one_shape_are_told_apart_when_compiled():
    arguments = tuple(map(jnp.asarray, random_arguments(np.random.default_rng(7), 4, 3, 2, taps=1)))
    early, late = np.zeros((2, 4, 3), bool)
    early[1], late[2] = True, True
    compiled = jax.jit(lambda *a: [conv_lstm(*a, taps=(0,), restart=r) for r in (early, late)])
    for result, restart in zip(compiled(*arguments), (early, late), strict=True):
        expected = conv_lstm_reference(*arguments, taps=(0,), restart=restart)
        np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_cell_is_equation_3():
    rng = np.random.default_rng(8)
    gates, c = rng.normal(size=4 * FEATURES), rng.normal(size=FEATURES)
    for n in range(2):
        assert_agree(
            lambda *a, n=n: cell(*a)[n], lambda *a, n=n: loops.cell(*a)[n], (gates, c), rng
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_cell_saturates(dtype):
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=5)))  # of o, f, i, g and c
    gates, c = jnp.asarray(1e4 * signs[:, :4], dtype), jnp.asarray(1e4 * signs[:, 4:], dtype)
    (h, after), vjp = jax.vjp(cell, gates, c)
    o, f, i = (signs[:, n : n + 1] > 0 for n in range(3))
    exact = f * c.astype(jnp.float64) + i * signs[:, 3:4]
    tolerance = float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(after.astype(jnp.float64), exact, rtol=tolerance, atol=tolerance)
    np.testing.assert_allclose(
        h.astype(jnp.float64), o * np.tanh(exact), rtol=tolerance, atol=tolerance
    )
    assert all(np.isfinite(d.astype(jnp.float64)).all() for d in vjp((h, after)))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_conv_lstm_saturates(diagonal_case, dtype):
    _, run_with_gradients = diagonal_case
    cotangent, gates, *state = diagonal_inputs(np.random.default_rng(9))
    inputs = cotangent, 1e4 * jnp.sign(gates), *(1e4 * x for x in state)
    for x in jax.tree.leaves(run_with_gradients(*(x.astype(dtype) for x in inputs))):
        assert np.isfinite(x.astype(jnp.float64)).all()


@pytest.mark.parametrize("pack", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_skew_lays_pixels_on_diagonals(height, width, pack):
    x = np.random.default_rng(10).normal(size=(4, height, width, FEATURES))
    y = jax.jit(functools.partial(skew, pack=pack))(x)
    steps = pack * width + height - 1
    expected = np.zeros((steps, height, 4 // pack, FEATURES))
    for t, row, lane, image in np.ndindex(steps, height, 4 // pack, pack):
        column = t - row - image * width
        if 0 <= column < width:
            expected[t, row, lane] = x[lane * pack + image, row, column]
    np.testing.assert_array_equal(y, expected)
    back = jax.jit(functools.partial(unskew, width=width, pack=pack))(y)
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("pack", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_skew_and_unskew_are_each_others_transposes(height, width, pack):
    rng = np.random.default_rng(11)
    x = rng.normal(size=(4, height, width, FEATURES))
    y = rng.normal(size=(pack * width + height - 1, height, 4 // pack, FEATURES))
    forth = jax.jit(values_and_gradients(functools.partial(skew, pack=pack)))
    back = jax.jit(values_and_gradients(functools.partial(unskew, width=width, pack=pack)))
    skewed, (skew_transpose_of_y,) = forth(y, x)
    unskewed, (unskew_transpose_of_x,) = back(x, y)
    np.testing.assert_allclose(np.vdot(skewed, y), np.vdot(x, unskewed), rtol=1e-12)
    np.testing.assert_array_equal(skew_transpose_of_y, unskewed)
    np.testing.assert_array_equal(unskew_transpose_of_x, skewed)


@pytest.mark.parametrize("pack", [1, 2, 4])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_restarts_mark_the_first_column_of_each_image(height, width, pack):
    expected = np.zeros((pack * width + height - 1, height), bool)
    for row, image in np.ndindex(height, pack):
        expected[row + image * width, row] = True
    found = restarts(height, width, pack=pack)
    assert isinstance(found, np.ndarray)
    np.testing.assert_array_equal(found, expected)


def diagonal_lstm(gates, own, above, h0, c0, *, pack, padding=0.0):
    """One direction of the Diagonal BiLSTM, as the layer puts it together from the kernels.

    `padding` stands in for gates at steps in which a row is outside every image.
    """
    _, height, width, _ = gates.shape
    inside = skew(jnp.ones_like(gates), pack=pack) > 0
    h = conv_lstm(
        jnp.where(inside, skew(gates, pack=pack), padding),
        jnp.stack([own, above]),
        h0,
        c0,
        taps=(0, -1),
        restart=restarts(height, width, pack=pack),
    )
    return unskew(h, width=width, pack=pack)


def diagonal_arguments(rng, *shape):
    gates, (own, above), h0, c0 = random_arguments(rng, *shape, taps=2)
    return gates, own, above, h0, c0


@pytest.mark.parametrize(
    ("height", "width", "pack"), [(3, 5, 1), (3, 5, 2), (5, 3, 4), (4, 1, 2), (1, 4, 4)]
)
def test_diagonal_recurrence_is_the_loop_over_pixels(height, width, pack):
    rng = np.random.default_rng(12)
    run = functools.partial(diagonal_lstm, pack=pack)
    arguments = diagonal_arguments(rng, 4, height, width)
    assert_agree(run, loops.diagonal_lstm, arguments, rng, compiled=True)


def test_packed_is_unpacked():
    rng = np.random.default_rng(13)
    inputs = rng.normal(size=(4, 4, 3, FEATURES)), *diagonal_arguments(rng, 4, 4, 3)
    unpacked, *packed = (
        jax.jit(values_and_gradients(functools.partial(diagonal_lstm, pack=pack)))(*inputs)
        for pack in (1, 2, 4)
    )
    for result in packed:
        assert_trees_close(result, unpacked)


def test_gates_outside_the_images_do_not_matter():
    rng = np.random.default_rng(14)
    run = functools.partial(diagonal_lstm, pack=2, padding=3.0)
    arguments = diagonal_arguments(rng, 4, 5, 3)
    assert_agree(run, loops.diagonal_lstm, arguments, rng, compiled=True)


@pytest.mark.parametrize(("height", "width", "size"), [(3, 5, 3), (5, 3, 5), (1, 4, 3), (4, 1, 3)])
def test_row_recurrence_is_the_loop_over_pixels(height, width, size):
    def row_lstm(gates, kernel, h0, c0):
        taps = range(-(size // 2), size // 2 + 1)
        h = conv_lstm(gates.transpose(1, 2, 0, 3), kernel, h0, c0, taps=taps)
        return h.transpose(2, 0, 1, 3)

    rng = np.random.default_rng(15)
    arguments = random_arguments(rng, 2, height, width, taps=size)
    assert_agree(row_lstm, loops.row_lstm, arguments, rng, compiled=True)
