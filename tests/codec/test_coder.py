"""The range coder: exact round trips, sizes, other processes, and its calls back to the host."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from helpers import programs
from helpers.codec_streams import GROUP, random_images, small_model
from helpers.random_models import random_batch, with_large_conditions

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import coder, compression, loop
from pixel_rnn_jax.codec.loop import Loop

COUPLED = dict(output="coupled_logistic_mixture", mixtures=2)


@pytest.mark.parametrize(
    ("architecture", "levels", "channels", "options"),
    [
        ("pixel_cnn", 17, 3, dict(input="categorical")),
        ("diagonal_bilstm", 2, 3, {}),
        ("row_lstm", 1000, 1, {}),
        pytest.param("pixel_cnn", 100, 3, COUPLED, marks=pytest.mark.slow),  # Quick: stored files.
        ("pixel_cnn", 2**16, 1, dict(output="discretized_logistic_mixture", mixtures=2)),
    ],
)
def test_round_trip(architecture, levels, channels, options):
    model = small_model(architecture, (2, 3, channels), levels, **options)
    for count in (0, 1, GROUP, GROUP + 1):
        images = random_images(model, count)
        images[:1] = levels - 1
        decoded = model.decompress(model.compress(images))
        np.testing.assert_array_equal(decoded, images)
        assert decoded.dtype == (np.uint8 if levels <= 256 else np.uint16)


@pytest.mark.slow
def test_size_is_the_likelihood_with_scales_and_classes_too(monkeypatch):
    monkeypatch.setattr(coder, "GROUP", 64)
    monkeypatch.setattr(compression, "BLOCK_BYTES", 2**16)  # One block.
    options = dict(output="discretized_logistic_mixture", mixtures=3)
    model = small_model("pixel_cnn", (4, 8, 2), scales=(2, 4), num_classes=3, **options)
    model.params = with_large_conditions(model.params)
    condition = np.random.default_rng(0).integers(3, size=200)
    images = model.sample(jax.random.key(3), 200, condition)
    sizes, expected = [], []
    for labels in condition, (condition + 1) % 3:
        data = model.compress(images, labels)
        decoded, decoded_labels = model.decompress(data, return_condition=True)
        np.testing.assert_array_equal(decoded, images)
        np.testing.assert_array_equal(decoded_labels, labels)
        sizes.append(len(data))
        bits = 200 * np.log2(3) - model.log_prob(images, labels).sum() / np.log(2)
        expected.append(bits / 8)
        assert 0 < sizes[-1] - expected[-1] < 70 + 0.001 * expected[-1]
    assert np.diff(expected) > 8  # The model makes use of the class.
    np.testing.assert_allclose(np.diff(sizes), np.diff(expected), atol=6)


@pytest.mark.usefixtures("x64")  # In float32 log_prob itself is less exact.
@pytest.mark.slow
@pytest.mark.parametrize(("levels", "black"), [(2**16, True), (2**16, False)])
def test_size_is_the_likelihood_however_many_levels(monkeypatch, levels, black):
    monkeypatch.setattr(coder, "GROUP", 1024)
    monkeypatch.setattr(compression, "BLOCK_BYTES", 2**16)  # One block.
    options = dict(output="discretized_logistic_mixture", mixtures=2, dtype="float64")
    model = small_model("pixel_cnn", (8, 8, 1), levels, **options)
    if black:  # Nineteen of twenty pixels, by a narrow component.
        logits = model.params["scale_0"]["logits"]
        bias = [3, 0, -0.677, 0, np.log(1.2 / levels), 0]
        logits |= {"kernel": logits["kernel"] / 100, "bias": np.array(bias, np.float32)}
    images = model.sample(jax.random.key(0), 2048)
    assert (np.mean(images == 0) > 0.9) == black
    data = model.compress(images)
    np.testing.assert_array_equal(model.decompress(data), images)
    size = -np.asarray(model.log_prob(images), float).sum() / np.log(2) / 8
    assert 0 < len(data) - size < 70 + 0.001 * size


@pytest.mark.parametrize(
    ("architecture", "options"),
    [
        ("pixel_cnn", dict(condition_vector=2)),
        ("row_lstm", dict(condition_map=2, input="categorical")),
    ],
)
def test_a_vector_or_a_map_is_stored(architecture, options):
    model = small_model(architecture, (2, 3, 2), **options)
    images, condition = random_batch(model.pixel_rnn, GROUP + 1)
    condition = condition.astype(np.float32)
    data = model.compress(images, condition)
    decoded, decoded_condition = model.decompress(data, return_condition=True)
    np.testing.assert_array_equal(decoded, images)
    np.testing.assert_array_equal(decoded_condition, condition)
    bits = -np.asarray(model.log_prob(images, condition)).sum() / np.log(2)
    assert 0 < len(data) - condition.nbytes - bits / 8 < 120


@pytest.mark.usefixtures("new_loops")
def test_precision_of_the_model_and_of_the_process_change_nothing():
    model = small_model(levels=7)  # Of which the inputs are rounded.
    images = random_images(model, GROUP + 1)
    with jax.enable_x64(True), jax.default_matmul_precision("bfloat16"):
        data = model.compress(images)
        np.testing.assert_array_equal(model.decompress(data), images)
    loop._compiled.cache_clear()
    assert model.compress(images) == data
    coarse = small_model(levels=7, dtype="bfloat16", remat=True)
    np.testing.assert_array_equal(coarse.decompress(data), images)


def test_a_model_of_too_many_levels_is_refused():
    many = small_model("pixel_cnn", (1, 1, 1), 70_000)
    with pytest.raises(prnn.UserError, match="70,000"):
        many.compress(np.zeros((1, 1, 1, 1), np.int32))


# The compiled loop calls back to the host.


def test_an_error_of_the_host_reaches_the_caller_as_itself(stream, model, capfd):
    images, data = stream
    places = []

    def code(doubled, place, size):
        places.append(place)
        if len(places) == 7:
            raise LookupError(place)
        return images[:GROUP, *place]

    with pytest.raises(LookupError) as caught:
        Loop(model.pixel_rnn, model.params).each_value((3, 4), GROUP, None, code)
    assert places == [*np.ndindex(3, 4, 1)][:7]  # None after the error.
    assert caught.value.args == (places[-1],)
    assert not capfd.readouterr().err
    assert not loop._calls
    assert model.compress(images) == data  # The same loop goes on working.


def test_calls_of_one_loop_do_not_mix():
    """Two models in four threads."""
    models = [small_model(seed=seed) for seed in range(2)]
    images = [random_images(models[0], count) for count in (9, 10)]
    expected = [model.compress(batch) for model, batch in zip(models, images, strict=True)]

    def work(i):
        for _ in range(3):
            assert models[i].compress(images[i]) == expected[i]
            np.testing.assert_array_equal(models[i].decompress(expected[i]), images[i])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, [0, 1, 0, 1]))


@pytest.mark.slow
def test_ctrl_c_is_heard_amid_a_block():
    program = """if True:
        import signal
        from helpers.codec_streams import *
        signal.signal(signal.SIGINT, signal.default_int_handler)  # A background job ignores it.
        in_small_groups()
        model = small_model(shape=(128, 128, 1))
        try:
            print("begun", flush=True)
            while True:
                model.compress(random_images(model, 1))
        except KeyboardInterrupt:
            print("heard", flush=True)
        small_model().compress(random_images(small_model(), 5))  # It goes on working.
    """
    paths = f"{programs.ROOT}:{programs.ROOT / 'tests'}"
    variables = {"PYTHONPATH": paths, "JAX_NUM_CPU_DEVICES": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program],
        env=programs.environment(variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    time.sleep(8)  # The first block is compiled, and takes longer.
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "heard\n"
    assert time.monotonic() - start < 2
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0 and not rest
