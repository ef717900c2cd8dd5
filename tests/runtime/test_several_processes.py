"""Several processes do what one does, share its checkpoints, and notice when one is gone."""

import concurrent.futures
import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import arrangement
import jax
import numpy as np
import programs
import pytest
from programs import LAUNCHER, MAIN, ROOT, train_words
from workdirs import records_of, saved_steps

import pixel_rnn_jax as prnn
from pixel_rnn_jax.errors import LOST, USER_ERROR

MERGED = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def together(*command, count=2, devices=1, second=()):
    """Returns (exit status, output) of the processes of one run; `second` adds flags to one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    flags = [f"--coordinator={address}", f"--num_processes={count}"]
    environment = programs.environment(devices=devices)

    def run(index):
        words = [sys.executable, *command, *flags, f"--process_id={index}", *second * (index == 1)]
        result = subprocess.run(words, env=environment, timeout=300, **MERGED)
        return result.returncode, result.stdout

    with concurrent.futures.ThreadPoolExecutor(count) as threads:
        return list(threads.map(run, range(count)))


# ---- The same results ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def image_set(tmp_path_factory):
    path = tmp_path_factory.mktemp("set") / "set.npz"
    arrangement.write_set(path)
    return path


@pytest.fixture(scope="module")
def one_device(image_set):
    return arrangement.measure(image_set, 1)


@pytest.mark.parametrize(
    ("count", "devices"), [(1, 4), (2, 2), pytest.param(4, 1, marks=pytest.mark.slow)]
)
def test_any_arrangement_trains_and_evaluates_as_one_device_does(
    image_set, one_device, count, devices, tmp_path
):
    if count == 1:
        found = [arrangement.measure(image_set, devices)]
    else:
        words = arrangement.__file__, image_set, tmp_path
        results = together(*words, count=count, devices=devices)
        assert [status for status, _ in results] == [0] * count, results
        found = [dict(np.load(tmp_path / f"{i}.npz")) for i in range(count)]

    # Row r of process p is row r * P + p of the batch: the batches are the same.
    epoch = np.stack([own["epoch"] for own in found], axis=2).reshape(one_device["epoch"].shape)
    np.testing.assert_array_equal(epoch, one_device["epoch"])
    # Every image exactly once in an epoch.
    images = np.load(image_set)["train"]
    flat = epoch.reshape(-1, *images.shape[1:])[: len(images)]
    assert sorted(map(bytes, flat)) == sorted(map(bytes, images))
    assert sum(name.startswith("gradient") for name in one_device) > 10
    for own in found:
        assert own.keys() == one_device.keys() and own["images"] == 101
        for name in own.keys() - {"epoch"}:
            assert own[name].dtype == one_device[name].dtype
            np.testing.assert_allclose(own[name], one_device[name], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    "counts",
    [(1, 2, 1), pytest.param((2, 4, 2, 1, 4), marks=pytest.mark.slow)],
    ids=lambda counts: "-".join(map(str, counts)),
)
@pytest.mark.usefixtures("x64")
def test_each_number_of_processes_goes_on_from_the_checkpoint_of_another(
    counts, tmp_path, compilation_cache
):
    environment = programs.environment({"JAX_ENABLE_X64": "1"} | compilation_cache)

    def run(name, count, steps):
        settings = {"model__dtype": "float64", "train__steps": steps, "train__eval_every": 1000}
        words = train_words(tmp_path / name, optimizer__learning_rate=3e-3, **settings)
        prefix = MAIN if count == 1 else [*LAUNCHER, str(count)]
        return programs.run(*prefix, *words, env=environment).stdout

    for number, count in enumerate(counts):
        output = run("shared", count, 5 * (number + 1))
        assert (f"going on from step {5 * number}\n" in output) == (number > 0)
        # One process wrote and printed.
        assert output.count("workdir: ") == output.count("\nindependent pixels: ") == 1
    run("straight", 1, 5 * len(counts))
    folders = [tmp_path / name for name in ("shared", "straight")]
    # The averages over all steps, which depend on the state of the optimiser at each.
    leaves = (jax.tree.leaves(prnn.load(folder).params) for folder in folders)
    for one, other in zip(*leaves, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    for one, other in zip(*map(records_of, folders), strict=True):
        for name in other:  # Validations of the shared run are more, one at the end of each part.
            assert one[name] == pytest.approx(other[name], rel=1e-9)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path):
    programs.run(*MAIN, *train_words(tmp_path / "run", train__steps=5, train__eval_batch_size=24))
    results = []
    for prefix in (MAIN, [*LAUNCHER, "2"]):
        picture = tmp_path / f"{len(results)}.png"
        words = ["evaluate", f"--workdir={tmp_path}/run", "--split=train", f"--pixel_map={picture}"]
        output = programs.run(*prefix, *words).stdout
        assert output.count("nats, black is none") == 1
        lines = output.replace(str(picture), "").splitlines()[-2:]
        results.append((lines, picture.read_bytes()))
    assert results[0] == results[1]


# ---- Processes that end -------------------------------------------------------------------------


class Pair:
    """Two processes of one run, which has saved a checkpoint, and their launcher."""

    def __init__(self, workdir, launcher):
        self.workdir, self.launcher = workdir, launcher

    def pid(self, index):
        """Returns the process id of one of the two, or None if it does not run."""
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_text().split("\0")
                if {f"--process_id={index}", f"--workdir={self.workdir}"} <= set(words):
                    return int(folder.name)
        return None

    def kill(self):
        self.launcher.kill()
        for process in filter(None, map(self.pid, range(2))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)


@pytest.fixture
def start_pair(tmp_path, compilation_cache):
    with contextlib.ExitStack() as stack:

        def start(*options):
            # So seldom that they are rarely found in the middle of a save, where each waits.
            settings = {"train__checkpoint_every": 200, "train__eval_every": 1000}
            words = train_words(tmp_path, train__steps=40_000, **settings)
            command = [*LAUNCHER, "2", *options, *words]
            environment = programs.environment(compilation_cache)
            launcher = stack.enter_context(subprocess.Popen(command, env=environment, **MERGED))
            pair = Pair(tmp_path, launcher)
            stack.callback(pair.kill)
            hang = threading.Timer(240, pair.kill)
            hang.start()
            stack.callback(hang.cancel)
            deadline = time.monotonic() + 120
            while not saved_steps(tmp_path):
                assert time.monotonic() < deadline and launcher.poll() is None
                time.sleep(0.05)
            time.sleep(0.5)
            return pair

        yield start


@pytest.mark.parametrize("victim", [0, 1])
def test_one_process_is_killed(victim, start_pair):
    pair = start_pair("--restarts=1")
    killed = time.monotonic()
    os.kill(pair.pid(victim), signal.SIGKILL)
    output, stopped = "", False
    for line in pair.launcher.stdout:
        output += line
        if line.startswith("starting all processes again"):
            assert time.monotonic() - killed < 60
        if "going on from step" in output and line.startswith("step ") and not stopped:
            # The second try has begun as it should.
            os.kill(pair.pid(0) if victim else pair.launcher.pid, signal.SIGTERM)
            stopped = True
    assert pair.launcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert f"process {victim} was killed (SIGKILL" in output
    assert f"process {1 - victim} has ended because it lacked another one" in output
    assert "starting all processes again; 0 more times" in output
    assert int(re.findall(r"going on from step (\d+)", output)[0]) >= 200
    [step] = re.findall(r"SIGTERM: stopped after step (\d+), which is saved", output)
    assert (pair.workdir / "checkpoints" / step / "_CHECKPOINT_METADATA").exists()


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_process_falls_silent(victim, start_pair):
    pair = start_pair()
    other = Path(f"/proc/{pair.pid(1 - victim)}/status")
    os.kill(pair.pid(victim), signal.SIGSTOP)  # Its connections stay open.
    stopped = time.monotonic()
    with contextlib.suppress(OSError):
        while "Z" not in re.findall(r"State:\s+(\w)", other.read_text()):
            assert time.monotonic() - stopped < 60
            time.sleep(0.1)
    assert time.monotonic() - stopped > 5  # It was no error of a connection.


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_signal_to_one_process_stops_all_after_the_same_step(victim, start_pair):
    pair = start_pair()
    os.kill(pair.pid(victim), signal.SIGTERM)
    output, _ = pair.launcher.communicate(timeout=60)
    assert pair.launcher.returncode == 128 + signal.SIGTERM
    [stopped] = re.findall(r"SIGTERM: stopped after step (\d+), which is saved", output)
    assert (pair.workdir / "checkpoints" / stopped / "_CHECKPOINT_METADATA").exists()


@pytest.mark.slow
def test_processes_do_not_outlive_the_terminal_of_the_launcher(start_pair):
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Tests may be run with nohup.
    try:
        pair = start_pair()
    finally:
        signal.signal(signal.SIGHUP, before)
    pair.launcher.send_signal(signal.SIGHUP)
    output, _ = pair.launcher.communicate(timeout=60)
    assert [pair.pid(index) for index in range(2)] == [None, None]
    assert "SIGTERM: stopped after step" in output
    assert pair.launcher.returncode == 128 + signal.SIGTERM


SIGNALLED = """if True:
    import os, signal, sys
    from pixel_rnn_jax import main
    from pixel_rnn_jax.training import evaluate
    measure = evaluate.measure
    def measure_and_signal(*arguments, **options):
        if "--process_id=1" in sys.argv:
            os.kill(os.getpid(), signal.SIGTERM)
        return measure(*arguments, **options)
    evaluate.measure = measure_and_signal
    main.run()
"""


@pytest.mark.slow
def test_signal_after_the_last_step(tmp_path):
    """The second process gets it while it evaluates on the validation split for the last time."""
    words = train_words(tmp_path, train__steps=3)
    (status, output), (other, _) = together("-c", SIGNALLED, *words)
    assert status == other == 128 + signal.SIGTERM
    assert "SIGTERM: stopped after step 3, which is saved" in output


# ---- Errors -------------------------------------------------------------------------------------


# Without the minute that the file of one process may take to be seen by all.
IMPATIENT = """if True:
    from pixel_rnn_jax import main
    from pixel_rnn_jax.runtime import processes
    processes.STORAGE_S = 2
    main.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--config.seed=1", "the processes were given different configs or flags"),
        ("--workdir={other}", "--workdir must be on storage that all processes share"),
    ],
)
def test_processes_that_do_not_belong_together(flag, message, tmp_path):
    words = train_words(tmp_path / "run", train__steps=3)
    second = [flag.format(other=tmp_path / "other")]
    (status, output), (other, said) = together("-c", IMPATIENT, *words, second=second)
    assert other == USER_ERROR
    assert re.search(f"^error: .*{message}", said, re.MULTILINE)
    # Which has the same to say, or says that it lacks the other one.
    assert status in (USER_ERROR, LOST, -signal.SIGABRT)
    assert "Traceback" not in output


# The first process may write no file as large as an array of this model.
LITTLE_SPACE = """if True:
    import resource, signal, sys
    from pixel_rnn_jax import main
    from pixel_rnn_jax.runs import checkpoints
    save = checkpoints.Checkpoints.save
    def save_little(*arguments, **options):
        if "--process_id=0" in sys.argv:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        save(*arguments, **options)
    checkpoints.Checkpoints.save = save_little
    checkpoints.OTHERS_S = 3
    main.run()
"""


@pytest.mark.slow
def test_full_disk_is_named(tmp_path):
    words = train_words(tmp_path, train__steps=400, train__checkpoint_every=10)
    (status, output), (other, _) = together("-c", LITTLE_SPACE, *words)
    assert status == USER_ERROR
    assert re.search("error: a checkpoint could not be written.*File too large", output)
    assert other in (LOST, -signal.SIGABRT)


def test_launcher_passes_an_error_on_and_does_not_try_again(tmp_path):
    words = train_words(tmp_path, train__steps=5, train__batch_size=3)
    error = programs.run(*LAUNCHER, "2", "--restarts=3", *words, status=2).stderr
    message = "error: train.batch_size / train.micro_batches must be a multiple of the number of"
    assert message in error and "starting" not in error
    assert "process 1 has ended with status 2: error: train.batch_size" in error
