"""Operations and bytes that are counted in a trace, against what formulas say."""

import functools
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from pixel_rnn_jax import kernels
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.pixel_rnn import PixelRNN

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from count_operations import Loop, Matmul, Program, count


def shape(*sizes, dtype=jnp.float32):
    return jax.ShapeDtypeStruct(sizes, dtype)


def test_matmul():
    found = count(jnp.matmul, shape(3, 5), shape(5, 7))
    assert found == Program([Matmul(1, 3, 5, 7, bytes=4 * (15 + 35 + 21))], [])
    assert found.operations == 2 * 3 * 5 * 7 and found.bytes == 284


def test_batched_contraction_of_two_axes():
    left, right = (shape(2, 3, 4, size, dtype=jnp.bfloat16) for size in (5, 6))
    (found,) = count(lambda x, y: jnp.einsum("btnf,btng->bfg", x, y), left, right).matmuls
    assert (found.batch, {found.rows, found.columns}, found.depth) == (2, {5, 6}, 12)
    assert found.bytes == 2 * (120 + 144 + 60)


@pytest.mark.parametrize("groups", [1, 2])
def test_convolution_counts_the_whole_kernel_at_every_output(groups):
    def convolve(x, kernel):
        numbers = ("NHWC", "HWIO", "NHWC")
        return lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=numbers, feature_group_count=groups
        )

    image, kernel = shape(2, 9, 9, 4), shape(3, 3, 4 // groups, 6)
    (found,) = count(convolve, image, kernel).matmuls
    assert found.operations == 2 * (2 * 9 * 9 * 6) * (3 * 3 * 4 // groups)
    assert found[:-1] == (groups, 2 * 9 * 9, 3 * 3 * 4 // groups, 6 // groups)
    # The gradient of the kernel is as much again; that of the image was not asked for.
    gradient = jax.grad(lambda kernel, image: convolve(image, kernel).sum())
    (found,) = count(gradient, kernel, image).matmuls
    assert found.operations == 2 * (2 * 9 * 9 * 6) * (3 * 3 * 4 // groups)
    assert (found.batch, found.columns) == (groups, 6 // groups)


def test_scan_of_matmuls():
    def function(weight, state, inputs):
        return lax.scan(lambda h, x: (h @ weight + x, h[0]), state, inputs)

    found = count(function, shape(5, 5), shape(3, 5), shape(11, 3, 5))
    matmul = Matmul(1, 3, 5, 5, bytes=4 * (15 + 25 + 15))
    loop = Loop(11, [matmul], held=4 * (25 + 2 * 15), streamed=4 * (15 + 5))
    assert found == Program([], [loop], chain=11)
    assert found.operations == 11 * 2 * 3 * 5 * 5 and found.bytes == 11 * 4 * 75


def test_scan_in_a_scan_is_repeated():
    def function(weight, parts):
        def run(state):
            return lax.scan(lambda h, _: (h @ weight, None), state, length=4)[0]

        return lax.map(lambda part: run(part @ weight), parts)

    found = count(function, shape(5, 5), shape(3, 2, 5))
    assert len(found.matmuls) == len(found.loops) == 3 and found.iterations == found.chain == 12
    assert found.operations == 3 * (1 + 4) * 2 * 2 * 5 * 5


def test_scans_that_do_not_need_each_other_are_no_chain():
    def run(x):
        return lax.scan(lambda h, _: (h @ h, None), x, length=5)[0]

    both = count(lambda x: run(x) + jax.jit(run)(2 * x), shape(3, 3))
    assert (both.iterations, both.chain) == (10, 5)
    assert count(lambda x: run(jax.jit(run)(x)), shape(3, 3)).chain == 10


def test_functions_that_are_called_count_once_and_remat_once_more():
    @jax.custom_vjp
    def product(x, y):
        return x @ y

    product.defvjp(lambda x, y: (x @ y, (x, y)), lambda saved, g: (g @ saved[1].T, saved[0].T @ g))
    one = 2 * 4**3
    square = shape(4, 4)
    assert count(product, square, square).operations == one
    assert count(jax.jit(product), square, square).operations == one
    gradient = jax.grad(lambda x, y: jnp.sin(product(x, y)).sum(), (0, 1))
    assert count(gradient, square, square).operations == 3 * one
    # What is squared has to be computed again.
    again = jax.checkpoint(lambda x, y: ((x @ y) ** 2) @ y)
    gradient = jax.value_and_grad(lambda x, y: again(x, y).sum(), (0, 1))
    assert count(gradient, square, square).operations == (2 + 1 + 4) * one


def test_what_no_result_needs_is_not_counted():
    def function(x):
        x @ x
        return x

    assert count(function, shape(3, 3)) == Program([], [])


def test_loops_of_unknown_length_are_refused():
    with pytest.raises(NotImplementedError, match="while"):
        count(lambda x: lax.while_loop(lambda h: h.sum() < 9, lambda h: h @ h, x), shape(3, 3))


@pytest.mark.parametrize("taps", [(0, -1), (-1, 0, 1)])
def test_recurrence_takes_what_its_formula_says(taps):
    steps, line, lanes, features = 6, 5, 4, 3
    arguments = (
        shape(steps, line, lanes, 4 * features),
        shape(len(taps), features, 4 * features),
        shape(features),
        shape(features),
    )
    function = functools.partial(kernels.conv_lstm, taps=taps)
    forward = len(taps) * features * 4 * features * 2 * line * lanes * steps
    found = count(function, *arguments)
    assert (found.operations, found.iterations) == (forward, steps)
    gradient = jax.grad(lambda *arguments: function(*arguments).sum(), (0, 1, 2, 3))
    found = count(gradient, *arguments)
    assert (found.operations, found.iterations, found.chain) == (3 * forward, 2 * steps, 2 * steps)
    # The gradient of the kernel is one product over all steps, outside the scans.
    assert [matmul.operations for matmul in found.matmuls] == [forward]


def test_pixel_cnn_agrees_with_the_compiler():
    config = ModelConfig("pixel_cnn", layers=1, features=64, head_features=64)
    model = PixelRNN(config, (8, 8, 3), 16)
    params = jax.eval_shape(lambda: model.init(jax.random.key(0)))
    gradient = jax.grad(lambda params, images: -model.log_prob(params, images).mean())
    arguments = params, shape(4, 8, 8, 3, dtype=jnp.uint8)
    compiled = jax.jit(gradient).lower(*arguments).compile().cost_analysis()["flops"]
    # The compiler also counts what is no matmul, one operation a value.
    assert 1 <= compiled / count(gradient, *arguments).operations < 1.05
