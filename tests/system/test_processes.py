"""Several processes do what one does, share its checkpoints, and notice when one is gone."""

import signal
import socket
import subprocess
import time

import jax
import numpy as np
import pytest
from helpers import programs
from helpers.programs import MAIN, ROOT, train_words
from helpers.workdirs import records_of, saved_steps

import pixel_rnn_jax as prnn
from pixel_rnn_jax.system import processes
from pixel_rnn_jax.system.errors import PEER_LOST


def start(words, count, environment):
    """Starts the processes of one run."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    flags = [f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}"] if count > 1 else []
    return [
        subprocess.Popen(
            [*MAIN, *words, *flags, *[f"--process_id={index}"] * (count > 1)],
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for index in range(count)
    ]


def train(workdir, steps, variables, *, count=1, devices=1):
    """Trains in float64; returns the outputs of the processes."""
    file = workdir.parent / "images.npz"
    images = np.random.default_rng(0).integers(3, size=(192, 4, 5, 1), dtype=np.uint8)
    np.savez(file, train=images[:64], validation=images[64:125], test=images[125:])
    words = train_words(
        workdir, train__steps=steps, train__eval_every=4, train__log_every=2,
        optimizer__learning_rate=3e-3, model__dtype="float64",
        data__name=file, data__levels=3,
    )  # fmt: skip
    environment = programs.environment({"JAX_ENABLE_X64": "1", **variables}, devices=devices)
    started = start(words, count, environment)
    outputs = [process.communicate(timeout=300)[0] for process in started]
    assert [process.returncode for process in started] == [0] * count, outputs
    return outputs


@pytest.fixture(scope="module")
def one_device(tmp_path_factory, compilation_cache):
    workdir = tmp_path_factory.mktemp("one")
    train(workdir, 8, compilation_cache)
    return workdir


@pytest.mark.slow
@pytest.mark.parametrize("count, devices", [(2, 2), (4, 1)])
@pytest.mark.usefixtures("x64")
def test_any_arrangement_trains_as_one_device_does(
    count, devices, one_device, tmp_path, compilation_cache
):
    """And goes on from the checkpoint of another arrangement."""
    outputs = train(tmp_path, 4, compilation_cache, count=count, devices=devices)
    assert ["nats" in output for output in outputs] == [True] + [False] * (count - 1)
    train(tmp_path, 8, compilation_cache)
    # The parameters depend on the gradients of all steps; the records have losses and validations.
    params = (prnn.load(workdir).params for workdir in (tmp_path, one_device))
    for here, there in zip(*map(jax.tree.leaves, params), strict=True):
        np.testing.assert_allclose(here, there, rtol=0, atol=1e-9)
    for here, there in zip(*map(records_of, (tmp_path, one_device)), strict=True):
        assert here == pytest.approx(there, rel=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "victim", "statuses"),
    [
        (signal.SIGKILL, 1, [PEER_LOST]),
        # JAX aborts where the first process, which leads the others, is gone, or where one is
        # silent and its connections stay open.
        (signal.SIGKILL, 0, [PEER_LOST, -signal.SIGABRT]),
        (signal.SIGSTOP, 1, [PEER_LOST, -signal.SIGABRT]),
    ],
    ids=["second killed", "first killed", "second silent"],
)
def test_one_process_is_lost(number, victim, statuses, tmp_path, compilation_cache):
    """The other ends with an error, and the run goes on from its last checkpoint."""
    settings = {"train__eval_every": 100_000, "train__checkpoint_every": 200}
    words = train_words(tmp_path, train__steps=100_000, **settings)
    pair = start(words, 2, programs.environment(compilation_cache))
    try:
        deadline = time.monotonic() + 120
        while not saved_steps(tmp_path):
            assert time.monotonic() < deadline and pair[0].poll() is None
            time.sleep(0.05)
        pair[victim].send_signal(number)
        assert pair[1 - victim].wait(timeout=3 * processes.HEARTBEAT_S) in statuses
    finally:
        for process in pair:
            process.kill()
            process.communicate()
    last = max(saved_steps(tmp_path))
    words = train_words(tmp_path, train__steps=last + 1, **settings)
    programs.run(*MAIN, *words, env=programs.environment(compilation_cache))
    assert max(saved_steps(tmp_path)) == last + 1
