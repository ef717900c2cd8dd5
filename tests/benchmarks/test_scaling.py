"""The rule behind docs/scaling.md, and that the document says what the counts and it give."""

import dataclasses
import math
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import roofline
import scaling
from count_operations import Loop, Matmul, Program

SMALL = [case for case in scaling.CASES if case.config == "digits"]


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
