"""Several processes: they do what one does, share its checkpoints, and notice when one is gone."""

import concurrent.futures
import contextlib
import importlib.util
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import arrangement
import jax
import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import distributed
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.metrics import read_records

ROOT = Path(__file__).resolve().parents[1]
LAUNCHER = [sys.executable, str(ROOT / "launch" / "processes.py"), sys.executable]
ALONE = [sys.executable, "-m", "pixel_rnn_jax.main", "train", f"--config={ROOT}/configs/digits.py"]


def _environment(devices: int | None = None) -> dict[str, str]:
    """The one in which a test's programs run, with so many CPU devices each."""
    without = "XLA_FLAGS|NPROC|JAX_NUM_CPU_DEVICES|(SLURM|OMPI|KUBERNETES|TPU)_.*"
    clean = {name: value for name, value in os.environ.items() if not re.fullmatch(without, name)}
    given = {"JAX_NUM_CPU_DEVICES": str(devices)} if devices else {}
    return clean | {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)} | given


def _together(commands: list[list[str]], devices: int = 1, timeout_s: float = 120) -> list[Any]:
    """Runs the processes of one run; returns (exit status, output) of each."""

    def run(command: list[str]) -> tuple[int, str]:
        result = subprocess.run(
            command,
            env=_environment(devices),
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
        )
        return result.returncode, result.stdout

    with concurrent.futures.ThreadPoolExecutor(len(commands)) as threads:
        return list(threads.map(run, commands))


def _two_of(
    program: str, *flags: str, second: Sequence[str] = (), timeout_s: float = 120
) -> list[Any]:
    """Runs a program as two processes of one run, the second with flags of its own besides."""
    command = [sys.executable, "-c", program, *flags]
    command += [f"--coordinator=127.0.0.1:{_port()}", "--num_processes=2"]
    commands = [[*command, "--process_id=0"], [*command, "--process_id=1", *second]]
    return _together(commands, timeout_s=timeout_s)


def _port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@pytest.fixture(scope="module")
def image_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("set") / "set.npz"
    arrangement.write_set(path)
    return path


@pytest.fixture(scope="module")
def one_device(image_set: Path) -> dict[str, np.ndarray]:
    return arrangement.measure(image_set, 1)


def _arranged(
    image_set: Path, processes: int, devices: int, folder: Path
) -> list[dict[str, np.ndarray]]:
    """What each of some processes with some devices each has found."""
    if processes == 1:
        return [arrangement.measure(image_set, devices)]
    program = [sys.executable, arrangement.__file__, str(image_set), str(folder)]
    program += [f"127.0.0.1:{_port()}", str(processes)]
    results = _together([[*program, str(i)] for i in range(processes)], devices, timeout_s=300)
    assert [status for status, _ in results] == [0] * processes, results
    return [dict(np.load(folder / f"{i}.npz")) for i in range(processes)]


@pytest.mark.parametrize(("processes", "devices"), [(1, 4), (2, 2), (4, 1)])
def test_any_arrangement_trains_and_evaluates_as_one_device_does(
    image_set: Path,
    one_device: dict[str, np.ndarray],
    processes: int,
    devices: int,
    tmp_path: Path,
) -> None:
    found = _arranged(image_set, processes, devices, tmp_path)

    # Row r of process p is row r * P + p of the batch: the batches are the same.
    epoch = np.stack([own["epoch"] for own in found], axis=2)
    epoch = epoch.reshape(one_device["epoch"].shape)
    np.testing.assert_array_equal(epoch, one_device["epoch"])
    # Every image exactly once in an epoch.
    images = np.load(image_set)["train"]
    flat = epoch.reshape(-1, *images.shape[1:])[: len(images)]
    assert _sorted(flat) == _sorted(images)

    for own in found:
        gradients = [name for name in own if name.startswith("gradient")]
        assert len(gradients) > 10
        for name in gradients:
            assert own[name].dtype == np.float32
            scale = np.abs(one_device[name]).max()
            np.testing.assert_allclose(own[name], one_device[name], rtol=0, atol=1e-5 * scale)
        assert own["losses"].dtype == np.float64
        np.testing.assert_allclose(own["losses"], one_device["losses"], rtol=0, atol=1e-9)
        assert own["images"] == 101
        for name in ("nats", "standard_error"):
            np.testing.assert_allclose(own[name], one_device[name], rtol=1e-6)


def _sorted(images: np.ndarray) -> list[bytes]:
    return sorted(image.tobytes() for image in images)


SETTINGS = {
    "model.architecture": "pixel_cnn",
    "model.layers": 1,
    "model.features": 4,
    "model.head_features": 8,
    "train.eval_every": 1000,
    "train.log_every": 5,
    "train.eval_batch_size": 24,
    "optimizer.schedule": "constant",
}


def _flags(workdir: Path, **settings: object) -> list[str]:
    values = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    return [
        f"--workdir={workdir}",
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def _records(workdir: Path) -> list[dict[str, float]]:
    records = read_records(workdir)
    for record in records:
        record.pop("train/images_per_second", None)
    return records


@pytest.mark.parametrize(
    "counts",
    [(1, 2, 1), pytest.param((2, 4, 2, 1, 4), marks=pytest.mark.slow)],
    ids=lambda counts: "-".join(map(str, counts)),
)
@pytest.mark.usefixtures("x64")
def test_each_number_of_processes_goes_on_from_the_checkpoint_of_another(
    counts: tuple[int, ...], tmp_path: Path
) -> None:
    def run(workdir: Path, count: int, steps: int) -> str:
        flags = _flags(
            workdir, model__dtype="float64", train__steps=steps, optimizer__learning_rate=3e-3
        )
        command = [*ALONE, *flags] if count == 1 else [*LAUNCHER, str(count), *flags]
        environment = _environment(1) | {"JAX_ENABLE_X64": "1"}
        return subprocess.run(
            command, env=environment, cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout

    for number, count in enumerate(counts):
        output = run(tmp_path / "shared", count, 5 * (number + 1))
        assert (f"going on from step {5 * number}\n" in output) == (number > 0)
        # One process wrote and printed.
        assert output.count("workdir: ") == output.count("independent pixels: ") == 1
    last = 5 * len(counts)
    run(tmp_path / "straight", 1, last)
    # The averages over all steps, which depend on the state of the optimiser at each.
    shared, straight = (prnn.load(tmp_path / name).params for name in ("shared", "straight"))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=0, atol=1e-9),
        shared,
        straight,
    )
    assert [record["step"] for record in read_records(tmp_path / "shared")] == [
        5 * (number + 1) for number in range(len(counts))
    ]
    for one, other in zip(
        *(_records(tmp_path / name) for name in ("shared", "straight")), strict=True
    ):
        for name in other:  # Validations of the shared run are more, one at the end of each part.
            assert one[name] == pytest.approx(other[name], rel=1e-9)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(tmp_path: Path) -> None:
    def run(*command: str) -> str:
        return subprocess.run(
            command, env=_environment(1), cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout

    run(*ALONE, *_flags(tmp_path / "run", train__steps=5))
    pictures = [tmp_path / f"{count}.png" for count in (1, 2)]
    words = ["evaluate", f"--workdir={tmp_path}/run", "--split=train"]
    one = run(*ALONE[:3], *words, f"--pixel_map={pictures[0]}")
    two = run(*LAUNCHER, "2", *words, f"--pixel_map={pictures[1]}")
    assert one.splitlines()[-1] == two.splitlines()[-1] != ""
    assert two.count("nats, black is none") == 1
    assert pictures[0].read_bytes() == pictures[1].read_bytes()


@contextlib.contextmanager
def _two_processes(workdir: Path, *options: str) -> "Iterator[subprocess.Popen[str]]":
    """Starts two processes and waits until the run has a checkpoint."""
    # So seldom that they are rarely found in the middle of a save, where they wait for each other.
    flags = _flags(workdir, train__steps=40_000, train__checkpoint_every=200)
    with subprocess.Popen(
        [*LAUNCHER, "2", *options, *flags],
        env=_environment(1),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as launcher:
        try:
            deadline = time.monotonic() + 120
            while not any(path.name.isdigit() for path in workdir.glob("checkpoints/*")):
                assert time.monotonic() < deadline and launcher.poll() is None
                time.sleep(0.05)
            time.sleep(0.5)
            hang = threading.Timer(120, _kill_all, (launcher, workdir))
            hang.start()
            yield launcher
            hang.cancel()
        finally:
            _kill_all(launcher, workdir)


def _kill_all(launcher: "subprocess.Popen[str]", workdir: Path) -> None:
    launcher.kill()
    for index in range(2):
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.kill(_process(workdir, index), signal.SIGKILL)


def _process(workdir: Path, index: int) -> int:
    """The process id of one process of a run."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_text().split("\0")
        except OSError:
            continue
        if f"--process_id={index}" in words and f"--workdir={workdir}" in words:
            return int(folder.name)
    raise AssertionError("it does not run")


@pytest.mark.parametrize("victim", [0, 1])
def test_one_process_is_killed(victim: int, tmp_path: Path) -> None:
    with _two_processes(tmp_path, "--restarts=1") as launcher:
        killed = time.monotonic()
        os.kill(_process(tmp_path, victim), signal.SIGKILL)
        output, stopped = "", False
        assert launcher.stdout
        for line in launcher.stdout:
            output += line
            if line.startswith("starting all processes again"):
                assert time.monotonic() - killed < 60
            if "going on from step" in output and line.startswith("step ") and not stopped:
                launcher.terminate()  # The second try has begun as it should.
                stopped = True
        assert launcher.wait(timeout=60) == 128 + signal.SIGTERM
    assert f"process {victim} was killed (SIGKILL" in output
    assert f"process {1 - victim} has ended because it lacked another one" in output
    assert "starting all processes again; 0 more times" in output
    assert int(re.findall(r"going on from step (\d+)", output)[0]) >= 200
    assert "SIGTERM: stopped after step" in output


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_one_process_falls_silent(victim: int, tmp_path: Path) -> None:
    with _two_processes(tmp_path):
        other = _process(tmp_path, 1 - victim)
        os.kill(_process(tmp_path, victim), signal.SIGSTOP)  # Its connections stay open.
        stopped = time.monotonic()
        while "Z" not in re.findall(r"State:\s+(\w)", Path(f"/proc/{other}/status").read_text()):
            assert time.monotonic() - stopped < 60
            time.sleep(0.1)
            if not Path(f"/proc/{other}").exists():
                break
        assert time.monotonic() - stopped > 5  # It was no error of a connection.


@pytest.mark.parametrize("victim", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_signal_to_one_process_stops_all_after_the_same_step(victim: int, tmp_path: Path) -> None:
    with _two_processes(tmp_path) as launcher:
        os.kill(_process(tmp_path, victim), signal.SIGTERM)
        output, _ = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + signal.SIGTERM
    [stopped] = re.findall(r"SIGTERM: stopped after step (\d+), which is saved", output)
    assert (tmp_path / "checkpoints" / stopped / "_CHECKPOINT_METADATA").exists()


@pytest.mark.slow
def test_processes_do_not_outlive_the_terminal_of_the_launcher(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # Tests may be run with nohup.
        stack.callback(signal.signal, signal.SIGHUP, before)
        launcher = stack.enter_context(_two_processes(tmp_path))
        launcher.send_signal(signal.SIGHUP)
        output, _ = launcher.communicate(timeout=60)
        for index in range(2):
            with pytest.raises(AssertionError, match="it does not run"):
                _process(tmp_path, index)
    assert "SIGTERM: stopped after step" in output
    assert launcher.returncode == 128 + signal.SIGTERM


@pytest.mark.slow
def test_signal_after_the_last_step(tmp_path: Path) -> None:
    # The second process gets it while it evaluates on the validation split for the last time.
    program = """if True:
        import os, signal, sys
        from pixel_rnn_jax import evaluate, main
        measure = evaluate.measure
        def measure_and_signal(*arguments):
            if "--process_id=1" in sys.argv:
                os.kill(os.getpid(), signal.SIGTERM)
            return measure(*arguments)
        evaluate.measure = measure_and_signal
        main.run()
    """
    flags = _flags(tmp_path, train__steps=3)
    (status, output), (other, _) = _two_of(program, *ALONE[3:], *flags)
    assert status == other == 128 + signal.SIGTERM
    assert "SIGTERM: stopped after step 3, which is saved" in output


IMPATIENT = """if True:
    from pixel_rnn_jax import distributed, main
    distributed.STORAGE_S = 2
    main.run()
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("second", "message"),
    [
        (["--config.seed=1"], "the processes were given different configs or flags"),
        (["--workdir={other}"], "--workdir must be on storage that all processes share"),
    ],
)
def test_processes_that_do_not_belong_together(
    second: list[str], message: str, tmp_path: Path
) -> None:
    flags = _flags(tmp_path / "run", train__steps=3)
    others = [word.format(other=tmp_path / "other") for word in second]
    results = _two_of(IMPATIENT, *ALONE[3:], *flags, second=others, timeout_s=60)
    assert results[1][0] == distributed.USER_ERROR
    assert re.search(f"^error: .*{message}", results[1][1], re.MULTILINE)
    # Which has the same to say, or says that it lacks the other one.
    ends = distributed.USER_ERROR, distributed.LOST, -signal.SIGABRT
    assert results[0][0] in ends and "Traceback" not in results[0][1]


@pytest.mark.slow
def test_evaluation_of_different_checkpoints_is_refused(tmp_path: Path) -> None:
    flags = _flags(tmp_path / "0", train__steps=10, train__checkpoint_every=5)
    subprocess.run([*ALONE, *flags], env=_environment(1), cwd=ROOT, check=True)
    shutil.copytree(tmp_path / "0", tmp_path / "1")
    shutil.rmtree(tmp_path / "1" / "checkpoints" / "5")
    first, second = (f"--workdir={tmp_path}/{i}" for i in range(2))
    results = _two_of(IMPATIENT, "evaluate", first, second=[second])
    for status, output in results:
        assert status == distributed.USER_ERROR
        assert re.search("^error: the processes see different checkpoints", output, re.MULTILINE)


@pytest.mark.slow
def test_full_disk_is_named(tmp_path: Path) -> None:
    # The first process may write no file as large as an array of this model.
    program = """if True:
        import resource, signal, sys
        from pixel_rnn_jax import checkpoints, main
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
    flags = _flags(tmp_path, train__steps=400, train__checkpoint_every=10)
    (status, output), (other, _) = _two_of(program, *ALONE[3:], *flags)
    assert status == 2
    assert re.search("error: A checkpoint could not be written.*File too large", output)
    assert other in (distributed.LOST, -signal.SIGABRT)


def test_launcher_passes_an_error_on_and_does_not_try_again(tmp_path: Path) -> None:
    flags = _flags(tmp_path, train__steps=5, train__batch_size=3)
    result = subprocess.run(
        [*LAUNCHER, "2", "--restarts=3", *flags],
        env=_environment(1),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 2
    message = "error: train.batch_size / train.micro_batches must be a multiple of the number of"
    assert message in result.stderr and "starting" not in result.stderr
    assert "process 1 has ended with status 2: error: train.batch_size" in result.stderr


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_process_waits_after_an_error(
    first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The end of the first is that of the others too, even of one that has said why and waits.
    waits: list[float] = []
    statuses: list[int] = []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(distributed, "first", lambda: first)
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(os, "_exit", statuses.append)
    distributed.end(distributed.USER_ERROR)
    assert waits == [distributed.SAME_S] * first
    assert statuses == [distributed.USER_ERROR]


@pytest.mark.parametrize(
    ("environment", "name"),
    [
        ({}, None),
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NODELIST": "n[1-4]"}, "SLURM"),
        ({"SLURM_NTASKS": "1", "SLURM_STEP_NODELIST": "n1"}, None),
        ({"SLURM_NTASKS": "4"}, None),  # The batch script itself, which is no task.
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://a:1"}, "Open MPI"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "Cloud TPU"),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ],
)
def test_clusters_that_start_several_processes_are_joined_unasked(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str | None
) -> None:
    calls = _initialize_calls(monkeypatch)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert distributed.started_by() == name
    distributed.join(cluster=False)
    assert not calls
    distributed.join()
    assert len(calls) == (name is not None)


def test_processes_of_open_mpi_5_meet_through_mpi4py(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _initialize_calls(monkeypatch)
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="Open MPI 5 meet through mpi4py: pip install mpi4py"):
        distributed.join()
    assert not calls and not distributed.joined()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    distributed.join()
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1.0;tcp://a:1")  # Version 4.
    distributed.join()
    assert [options["cluster_detection_method"] for _, options in calls] == ["mpi4py", None]


def test_kubernetes_is_asked_through_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _initialize_calls(monkeypatch)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    distributed.join()  # Not several, as far as is known.
    with pytest.raises(UserError, match="pip install kubernetes"):
        distributed.join(cluster=True)
    assert not calls
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    distributed.join(cluster=True)
    assert [options["cluster_detection_method"] for _, options in calls] == [None]


def _initialize_calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """What JAX is asked for, instead of doing it."""
    calls: list[tuple[Any, ...]] = []

    def initialize(*arguments: object, **options: object) -> None:
        calls.append((arguments, options))

    for variable in list(os.environ):
        if re.match("(SLURM|OMPI|KUBERNETES|TPU)_", variable):
            monkeypatch.delenv(variable)
    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    monkeypatch.setattr(distributed, "_begun", False)
    return calls


def test_jax_gets_the_flags_and_a_short_heartbeat(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = _initialize_calls(monkeypatch)
    distributed.join("host:123", 3, 1)
    [(arguments, options)] = calls
    assert arguments == ("host:123", 3, 1)
    assert options["heartbeat_timeout_seconds"] <= 30
    assert options["cluster_detection_method"] == "deactivate"
    assert not jax.config.values["jax_enable_preemption_service"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("h:1", None, 0), "need each other"),
        ((None, 2, None), "need each other"),
        (("h", 2, 0), "--coordinator must be HOST:PORT with a port from 1 to 65535, got h"),
        (("h:0", 2, 1), "got h:0"),
        (("h:65536", 2, 1), "got h:65536"),
        (("h:1", 2, 2), "--process_id must be from 0 to --num_processes - 1, got 2 of 2"),
        (("h:1", 2, -1), "got -1 of 2"),
    ],
)
def test_impossible_flags(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[Any, ...], message: str
) -> None:
    calls = _initialize_calls(monkeypatch)
    with pytest.raises(UserError, match=message):
        distributed.join(*arguments)
    assert not calls


def test_flags_and_cluster_exclude_each_other() -> None:
    with pytest.raises(UserError, match="leave out one of --distributed and --coordinator"):
        distributed.join("h:1", 2, 0, cluster=True)


def test_worker_of_a_slice_on_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="slice has 4 workers.*with --distributed"):
        distributed.check()


def _main(*flags: str, wait_s: float = 60) -> "subprocess.CompletedProcess[str]":
    """Runs main, with another time to wait for the others."""
    program = f"""if True:
        import functools
        from pixel_rnn_jax import distributed, main
        distributed.join = functools.partial(distributed.join, timeout_s={wait_s})
        main.run()
    """
    return subprocess.run(
        [sys.executable, "-c", program, *ALONE[3:], *flags],
        env=_environment(1),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_cluster_that_is_not_there(tmp_path: Path) -> None:
    result = _main("--distributed", f"--workdir={tmp_path}/run")
    assert result.returncode == 2
    assert result.stderr.startswith("error: --distributed finds no Cloud TPU, SLURM, Open MPI or")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("process", [0, 1])
def test_the_others_do_not_come(process: int, tmp_path: Path) -> None:
    address = f"127.0.0.1:{_port()}"
    flags = f"--coordinator={address}", "--num_processes=2", f"--process_id={process}"
    result = _main(*flags, f"--workdir={tmp_path}/run", wait_s=2)
    assert result.returncode == distributed.LOST  # Launchers may try again.
    [error] = [line for line in result.stderr.splitlines() if line.startswith("error")]
    assert f"error: not all processes have met at {address} within 2 s" in error
    assert "Traceback" not in result.stderr and "stack trace" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_port_is_taken() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = _main(f"--coordinator={address}", "--num_processes=2", "--process_id=0")
    assert result.returncode == 2
    assert result.stderr.startswith("error: the first process cannot listen at port")
    assert "Address already in use" in result.stderr


class TestLauncher:
    """`launch/processes.py`."""

    @pytest.fixture
    def gpus(self, tmp_path: Path) -> Callable[[int], dict[str, str]]:
        """Returns an environment in which nvidia-smi lists so many GPUs."""

        def environment(count: int) -> dict[str, str]:
            stub = tmp_path / "nvidia-smi"
            lines = "".join(f"GPU {i}: Name (UUID: GPU-{i})\n" for i in range(count))
            stub.write_text(f"#!/bin/sh\ncat <<'EOF'\n{lines}EOF\n")
            stub.chmod(0o755)
            return _environment() | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}

        return environment

    def _dry(self, *words: str, env: dict[str, str]) -> list[list[str]]:
        result = subprocess.run(
            [*LAUNCHER, *words], env=env, capture_output=True, text=True, check=True
        )
        return [shlex.split(line) for line in result.stdout.splitlines()]

    def test_commands(self) -> None:
        words = "2", "--dry_run", "evaluate", "--workdir=a b", "--split=train"
        cores = len(os.sched_getaffinity(0))
        assert self._dry(*words, env=_environment()) == [
            [
                *("env", f"JAX_NUM_CPU_DEVICES={max(1, cores // 2)}"),
                *(sys.executable, "-m", "pixel_rnn_jax.main"),
                *("evaluate", "--workdir=a b", "--split=train", "--coordinator=127.0.0.1:PORT"),
                *("--num_processes=2", f"--process_id={index}"),
            ]
            for index in range(2)
        ]

    def test_default_config(self) -> None:
        [command] = self._dry("1", "--dry_run", env=_environment())
        assert f"--config={ROOT}/configs/digits.py" in command and "train" in command
        [command] = self._dry("1", "--dry_run", "--config", "a.py", env=_environment())
        assert not any("digits" in word for word in command)

    def test_gpus_are_shared_out(self, gpus: Callable[[int], dict[str, str]]) -> None:
        def shares(environment: dict[str, str]) -> list[list[str]]:
            commands = self._dry("2", "--dry_run", env=environment)
            name = "JAX_LOCAL_DEVICE_IDS="
            return [
                [word.removeprefix(name) for word in command if word.startswith(name)]
                for command in commands
            ]

        free = {"JAX_PLATFORMS": "cuda,cpu"}
        assert shares(gpus(8) | free) == [["0,1,2,3"], ["4,5,6,7"]]
        assert shares(gpus(3) | free) == [["0"], ["1"]]  # As many for each.
        assert shares(gpus(8) | free | {"CUDA_VISIBLE_DEVICES": "6,7"}) == [["0"], ["1"]]
        assert shares(gpus(8) | free | {"CUDA_VISIBLE_DEVICES": "6,7,-1,5"}) == [["0"], ["1"]]
        for platforms in ("", "gpu"):
            assert shares(gpus(2) | {"JAX_PLATFORMS": platforms}) == [["0"], ["1"]]
        assert shares(gpus(8)) == [[], []]  # JAX_PLATFORMS=cpu.
        assert shares(gpus(8) | free | {"CUDA_VISIBLE_DEVICES": "-1"}) == [[], []]
        assert shares(gpus(0) | free) == [[], []]
        result = subprocess.run(
            [*LAUNCHER, "2"], env=gpus(1) | free, capture_output=True, text=True, check=False
        )
        assert result.returncode == 2
        assert "there are 2 processes for 1 GPUs: start fewer" in result.stderr

    @pytest.mark.parametrize(
        ("words", "message"),
        [
            (["two"], "the first word must be the number of processes, such as 2, got two"),
            (["0"], "got 0"),
            (["2", "--restarts=many"], "--restarts must be a number"),
            (["2", "sample"], "sample needs one process: launch/local.sh runs it"),
        ],
    )
    def test_wrong_words(self, words: list[str], message: str) -> None:
        result = subprocess.run([*LAUNCHER, *words], capture_output=True, text=True)
        assert result.returncode == 2
        assert result.stderr.startswith("error: ") and message in result.stderr

    def test_nothing_is_installed_to_show_the_commands(self, tmp_path: Path) -> None:
        shutil.copytree(ROOT / "launch", tmp_path / "launch")

        def run(*words: str) -> "subprocess.CompletedProcess[str]":
            command = ["bash", str(tmp_path / "launch" / "processes.sh"), *words]
            return subprocess.run(command, env=_environment(), capture_output=True, text=True)

        shown = run("2", "--restarts=1", "--dry_run", "--workdir=a b")
        assert shown.returncode == 0 and not shown.stderr
        first, second = map(shlex.split, shown.stdout.splitlines())
        assert f"{tmp_path}/.venv/bin/python" in first and "--workdir=a b" in first
        assert "--process_id=1" in second
        wrong = run("2", "sample")
        assert wrong.returncode == 2 and wrong.stderr.startswith("error: sample needs one process")
        assert not (tmp_path / ".venv").exists()

    def test_help(self) -> None:
        script = ROOT / "launch" / "processes.sh"
        for words in (["--help"], []):
            text = subprocess.run(
                ["bash", script, *words], capture_output=True, text=True, check=True
            ).stdout
            assert text.startswith("Usage: bash launch/processes.sh N ")
            assert max(map(len, text.splitlines())) <= 100
