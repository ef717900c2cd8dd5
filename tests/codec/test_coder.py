"""The range coder: exact round trips, sizes, other processes, and its calls back to the host."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from codec_streams import (
    LANES,
    compressed,
    decompressed,
    header_length,
    random_images,
    small_model,
)

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import coder
from pixel_rnn_jax.codec.coder import Coder
from pixel_rnn_jax.data import Batch

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("architecture", "levels", "channels"),
    [
        ("pixel_cnn", 2, 1),
        ("row_lstm", 17, 3),
        ("diagonal_bilstm", 2, 3),
        ("diagonal_bilstm", 256, 1),
        ("row_lstm", 1000, 1),
    ],
)
def test_round_trip(architecture, levels, channels):
    model = small_model(architecture, (2, 3, channels), levels)
    for count in (0, 1, LANES, LANES + 1):
        images = random_images(model, count)
        images[:1] = levels - 1
        decoded = decompressed(model, compressed(model, images))
        np.testing.assert_array_equal(decoded, images)
        assert decoded.dtype == (np.uint8 if levels <= 256 else np.uint16)


def test_size_is_the_likelihood():
    model = small_model(shape=(16, 16, 1), levels=7)
    images = random_images(model, 4 * LANES)
    bits = -model.log_prob(images).sum() / np.log(2)
    data = compressed(model, images)
    header = header_length(data)
    assert header < 200
    assert bits / 8 < len(data) - header < 1.001 * bits / 8 + 4 * (28 + 8)


def test_precision_of_the_model_and_of_the_process_change_nothing(stream, model):
    images, data = stream
    coarse = small_model(dtype="bfloat16", remat=True)
    np.testing.assert_array_equal(decompressed(coarse, data), images)
    coder._compiled.cache_clear()
    with jax.enable_x64(True), jax.default_matmul_precision("bfloat16"):
        assert compressed(model, images) == data
        np.testing.assert_array_equal(decompressed(model, data), images)


def in_process(program, cwd, **environment):
    """Starts a program that imports the package and the helpers of these tests."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": path, "JAX_PLATFORMS": "cpu"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


FLAGS = "--xla_cpu_enable_fast_math=true --xla_cpu_use_onednn=true"


@pytest.mark.parametrize(
    ("devices", "environment"),
    [
        (3, {"XLA_FLAGS": f"--xla_cpu_multi_thread_eigen=true {FLAGS}"}),
        pytest.param(1, {"NPROC": "1"}, marks=pytest.mark.slow),
    ],
)
def test_another_process_decodes(tmp_path, devices, environment):
    model = small_model("diagonal_bilstm", (6, 5, 3), 17, layers=2)
    images = random_images(model, LANES + 1)
    (tmp_path / "stream").write_bytes(compressed(model, images))
    leaves = {str(i): leaf for i, leaf in enumerate(jax.tree.leaves(model.params))}
    np.savez(tmp_path / "arrays.npz", images=images, **leaves)
    program = f"""
import jax, numpy as np
from codec_streams import decompressed, small_model
from pixel_rnn_jax.codec import coder
coder.LANES = {LANES}
model = small_model("diagonal_bilstm", (6, 5, 3), 17, layers=2)
# As a file gives them: under other flags, random ones could be others.
arrays = np.load("arrays.npz")
leaves = [arrays[str(i)] for i in range({len(leaves)})]
model.params = jax.tree.unflatten(jax.tree.structure(model.params), leaves)
images = decompressed(model, open("stream", "rb").read())
np.testing.assert_array_equal(images, arrays["images"])
print(jax.device_count(), "devices")
"""
    process = in_process(program, tmp_path, JAX_NUM_CPU_DEVICES=str(devices), **environment)
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0 and f"{devices} devices" in out, out


def test_parameters_that_are_not_finite_are_refused(model):
    params = jax.tree.map(lambda leaf: leaf * np.nan, model.params)
    with pytest.raises(prnn.UserError, match="parameters that are not finite: train it again"):
        Coder(model.model, params)


# The compiled loop calls back to the host.


class HostError(Exception):
    """Of a function that codes values."""


@pytest.mark.parametrize("after", [1, 7])
def test_an_error_of_the_host_reaches_the_caller_as_itself(stream, model, after, caplog, capfd):
    images, data = stream
    calls = []

    def code(probabilities, place):
        calls.append(place)
        if len(calls) == after:
            raise HostError(place)
        return images[:LANES, *place]

    own = Coder(model.model, model.params)
    with pytest.raises(HostError) as caught:
        own._each_value(LANES, None, code)
    assert calls == [*np.ndindex(3, 4, 1)][:after]  # In order, and none after the error.
    assert caught.value.args == (calls[-1],)
    assert not caplog.records and not capfd.readouterr().err
    assert not coder._sessions
    assert compressed(model, images) == data  # The same loop goes on working.


def test_places_come_in_generation_order_with_probabilities_given_all_before():
    model = small_model(shape=(4, 6, 2), scales=(2, 4))
    images, found = random_images(model, 3), np.full((3, 4, 6, 2, 5), np.nan)
    places = []

    def code(probabilities, place):
        places.append(place)
        found[:, *place] = probabilities
        return images[:, *place]

    Coder(model.model, model.params)._each_value(3, None, code)
    coarse = [(2 * r, 2 * c, channel) for r, c, channel in np.ndindex(2, 3, 2)]
    rest = [place for place in np.ndindex(4, 6, 2) if place not in coarse]
    assert places == coarse + rest
    np.testing.assert_allclose(np.log(found), model.conditionals(images), atol=1e-4)


def test_sessions_do_not_mix():
    """Two models in four threads, and one that is used while another is in the middle of a block.

    The models are equal but for their parameters, so that they share a compiled loop.
    """
    models = [small_model(seed=seed) for seed in range(2)]
    images = [random_images(model, 2 * LANES + 1)[seed:] for seed, model in enumerate(models)]
    expected = [compressed(*pair) for pair in zip(models, images, strict=True)]
    found = []

    def work(i):
        for _ in range(3):
            data = compressed(models[i], images[i])
            decoded = decompressed(models[i], data)
            found.append(data == expected[i] and np.array_equal(decoded, images[i]))

    threads = [threading.Thread(target=work, args=(i % 2,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 12

    outer, inner = (Coder(model.model, model.params) for model in models)
    block = Batch(images[1][:LANES].astype(np.uint8))
    code = inner.encode(block)
    places = []

    def nested(probabilities, place):
        if place == (1, 2, 0):
            assert inner.encode(block) == code
            np.testing.assert_array_equal(inner.decode(code, LANES).images, block.images)
        places.append(place)
        return images[0][:LANES, *place]

    outer._each_value(LANES, None, nested)
    assert places == [*np.ndindex(3, 4, 1)]


SLOW_BLOCK = f"""
import jax, sys
from codec_streams import compressed, random_images, small_model
from pixel_rnn_jax.codec import coder
coder.LANES = {LANES}
model = small_model(shape=(128, 128, 1))
images = random_images(model, 1)
encode = coder.Coder.encode

def timed(self, batch):
    print("begun", flush=True)
    try:
        return encode(self, batch)
    except KeyboardInterrupt:
        print("heard", flush=True)
        raise

coder._compiled(coder.Coder(model.model, model.params).model, jax.devices()[0], {LANES})
coder.Coder.encode = timed
try:
    for _ in range(100):
        compressed(model, images)
except KeyboardInterrupt:
    small = small_model()  # A loop goes on working, and the program ends by itself.
    assert len(compressed(small, random_images(small, 5))) > 100
    sys.exit(130)
"""


@pytest.mark.slow
@pytest.mark.parametrize("devices", [1, 2])
def test_ctrl_c_is_heard_in_the_middle_of_a_block(tmp_path, devices):
    process = in_process(SLOW_BLOCK, tmp_path, JAX_NUM_CPU_DEVICES=str(devices))
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    time.sleep(1)
    start = time.monotonic()
    process.send_signal(signal.SIGINT)
    while (line := process.stdout.readline()) == "begun\n":
        pass
    assert line == "heard\n"
    assert time.monotonic() - start < 2  # A block takes longer.
    rest, _ = process.communicate(timeout=120)
    assert process.returncode == 130 and rest == "begun\n" * 2  # And no traceback.
