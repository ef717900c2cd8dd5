"""The counts and the rule behind docs/scaling.md, and that the document says what they say."""

import dataclasses
import functools
import math
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from pixel_rnn_jax import joint, kernels, models
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.images import Batch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
import roofline
import scaling
from count_operations import Loop, Matmul, Program, count

SMALL = [case for case in scaling.CASES if case.config == "digits"]


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
    model = models.create(config, (8, 8, 3), 16)
    params = jax.eval_shape(lambda: joint.init_parameters(model, jax.random.key(0)))
    loss_fn = joint.nats_by_scale(model)
    gradient = jax.grad(lambda params, images: loss_fn(params, images).mean())
    arguments = params, Batch(shape(4, 8, 8, 3, dtype=jnp.uint8))
    compiled = jax.jit(gradient).lower(*arguments).compile().cost_analysis()["flops"]
    # The compiler also counts what is no matmul, one operation a value.
    assert 1 <= compiled / count(gradient, *arguments).operations < 1.05


@pytest.mark.parametrize("architecture, pack", [("row_lstm", 1), ("diagonal_bilstm", 0)])
def test_every_size_is_linear_in_the_batch(architecture, pack):
    case = scaling.Case("digits", architecture)
    assert scaling.program(case, 12, pack=pack) == scaling.traced(case, 12, pack)


def test_step_reduces_one_vector_of_the_gradient():
    case = scaling.Case("digits", "row_lstm")
    vector = scaling.traced(case, 4, 1).reduced
    assert 4 < vector - 4 * scaling.parameters(case) <= 16  # The loss, and what else goes along.


def test_remat_runs_every_scan_of_the_forward_pass_again():
    plain = scaling.Case("digits", "diagonal_bilstm")
    remat = plain._replace(changes=(("remat", True),))
    (few, many) = (scaling.traced(case, 4, 1) for case in (plain, remat))
    layers, directions, steps = 2, 2, 8 + 8 - 1
    assert few.iterations == 2 * layers * directions * steps == 2 * few.chain
    assert many.iterations == 3 * layers * directions * steps == 2 * many.chain


def machine(**changes):
    """Returns a machine on which all but what a test is about costs nothing."""
    free = roofline.Machine("", {"float32": math.inf}, 1.0, math.inf, 100, math.inf)
    return dataclasses.replace(free, **changes)


def seconds_on(chip):
    """Returns a function of a matmul's sizes."""
    return lambda *sizes: roofline.arithmetic_seconds(chip, Matmul(*sizes, 0), "float32")


def test_tiles_are_computed_whole():
    chip = machine(peak={"float32": 2.0 * 8 * 128 * 128}, tile=(8, 128, 128))
    seconds = seconds_on(chip)
    assert seconds(1, 1, 1, 1) == seconds(1, 8, 128, 128) == 1
    assert seconds(1, 9, 128, 128) == seconds(1, 8, 129, 128) == seconds(2, 8, 128, 128) == 2


def test_units_that_have_no_tile_wait():
    chip = machine(peak={"float32": 3 * 2.0 * 4 * 4 * 4}, reached=0.5, tile=(4, 4, 4), units=3)
    seconds = seconds_on(chip)
    assert seconds(1, 4, 4, 4) == seconds(1, 12, 4, 4) == 2 and seconds(1, 13, 4, 4) == 4


def test_an_iteration_takes_the_longest_of_its_causes():
    chip = machine(bandwidth=2.0, cache_bandwidth=10.0, launch=3.0, launches=2)
    assert roofline.iteration(chip, Loop(1, [], 100, 4), "float32") == (6, 0, 12)
    assert roofline.iteration(chip, Loop(1, [], 101, 4), "float32") == (6, 0, 52.5)  # No cache.
    work = Program([Matmul(1, 1, 1, 1, 4)], [Loop(5, [], 0, 4), Loop(1, [], 100, 4)])
    assert roofline.scan_seconds(chip, work, "float32") == 5 * 6 + 12
    assert roofline.other_seconds(chip, work, "float32") == 3
    assert roofline.mean_iteration(chip, work, "float32").memory == pytest.approx((5 * 2 + 12) / 6)


def test_ring_sends_nearly_twice_the_vector():
    chip = machine(links={8: 10.0, 64: 5.0}, hop=0.25)
    assert roofline.all_reduce_seconds(chip, 1, 80) == 0
    assert roofline.all_reduce_seconds(chip, 8, 80) == 2 * 7 / 8 * 80 / 10 + 14 * 0.25
    assert roofline.all_reduce_seconds(chip, 16, 80) == 2 * 15 / 16 * 80 / 5 + 30 * 0.25


@pytest.mark.parametrize("bandwidth", [1.0, 3.0, 1000.0])
def test_largest_batch_that_takes_no_longer(bandwidth):
    chip = machine(bandwidth=bandwidth, launch=20.0)

    def work(batch):
        return Program([], [Loop(1, [], 0, batch)])

    full = roofline.full_at(chip, work, "float32")
    assert work(full).bytes / bandwidth <= 1.001 * 20 < work(full + 1).bytes / bandwidth
    assert roofline.full_at(chip, work, "float32", step=4) == full // 4 * 4


def test_more_chips_than_images_are_of_no_use():
    case = scaling.Case("digits", "row_lstm")
    speeds = [
        scaling.images_per_second(roofline.V5E, case, chips, shared=True) for chips in (16, 32, 64)
    ]
    assert scaling.batch_of(case) == 32
    assert speeds[0] != speeds[1] == speeds[2]


def test_whole_numbers_are_exact_and_others_have_three_digits():
    values = [0, 1234567, 0.0012345, 1.0, 12.345, 99.96, 1236.7]
    written = ["0", "1,234,567", "0.00123", "1", "12.3", "100", "1,240"]
    assert [scaling.figure(value) for value in values] == written


def test_document_has_the_counts_of_small_models_and_the_machines():
    document = scaling.DOCUMENT.read_text()
    lines = scaling.written("counts", document).splitlines()
    own = scaling.counts(SMALL).splitlines()
    assert len(own) == 2 + len(SMALL) and set(own) <= set(lines)
    assert scaling.written("machines", document) == scaling.machines()
    for name in scaling.TABLES:
        assert scaling.written(name, document).count("\n| ") > 2, name


@pytest.mark.slow
@pytest.mark.parametrize("name", ["counts", "roofline", "images"])
def test_document_has_what_the_model_gives_now(name):
    assert scaling.written(name, scaling.DOCUMENT.read_text()) == scaling.TABLES[name]()


@pytest.mark.slow
def test_this_machine_can_be_measured():
    machine = scaling.this_cpu()
    found = [machine.peak["float32"], machine.bandwidth, machine.launch]
    assert np.isfinite(found).all() and min(found) > 0
    assert scaling.measured_seconds(scaling.Case("digits", "pixel_cnn")) > 0
