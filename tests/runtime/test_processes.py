"""How a process joins the others of its run, and how it ends."""

import importlib.util
import os
import re
import socket
import sys
import time

import jax
import programs
import pytest

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import processes


@pytest.fixture
def calls(monkeypatch):
    """What JAX is asked for, instead of doing it, in an environment without a cluster."""
    calls = []
    for variable in list(os.environ):
        if re.match("(SLURM|OMPI|KUBERNETES|TPU)_", variable):
            monkeypatch.delenv(variable)
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *given, **options: calls.append((given, options))
    )
    monkeypatch.setattr(processes, "_begun", False)
    return calls


def test_jax_gets_the_flags_and_a_short_heartbeat(calls):
    processes.join("host:123", 3, 1)
    [(arguments, options)] = calls
    assert arguments == ("host:123", 3, 1)
    assert options["heartbeat_timeout_seconds"] <= 30
    assert options["cluster_detection_method"] == "deactivate"
    assert not jax.config.values["jax_enable_preemption_service"]


@pytest.mark.parametrize(
    ("arguments", "cluster", "message"),
    [
        (("h:1", None, 0), None, "need each other"),
        ((None, 2, None), None, "need each other"),
        (("h", 2, 0), None, "--coordinator must be HOST:PORT with a port from 1 to 65535, got h"),
        (("h:0", 2, 1), None, "got h:0"),
        (("h:65536", 2, 1), None, "got h:65536"),
        (("h:1", 2, 2), None, "--process_id must be from 0 to --num_processes - 1, got 2 of 2"),
        (("h:1", 2, -1), None, "got -1 of 2"),
        (("h:1", 2, 0), True, "leave out one of --distributed and --coordinator"),
    ],
)
def test_impossible_flags(calls, arguments, cluster, message):
    with pytest.raises(UserError, match=message):
        processes.join(*arguments, cluster=cluster)
    assert not calls


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
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, None),  # As in every pod.
    ],
)
def test_clusters_that_start_several_processes_are_joined_unasked(
    calls, monkeypatch, environment, name
):
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    assert processes.started_by() == name
    processes.join(cluster=False)
    assert not calls
    processes.join()
    assert len(calls) == (name is not None)


@pytest.mark.parametrize(
    ("variable", "cluster", "message", "method"),
    [
        ("OMPI_COMM_WORLD_SIZE", None, "Open MPI 5 meet through mpi4py: pip install m", "mpi4py"),
        ("KUBERNETES_SERVICE_HOST", True, "asks Kubernetes .*: pip install kubernetes", None),
    ],
)
def test_clusters_that_are_asked_through_a_package(
    calls, monkeypatch, variable, cluster, message, method
):
    monkeypatch.setenv(variable, "2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=message):
        processes.join(cluster=cluster)
    assert not calls and not processes.joined()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: "found")
    processes.join(cluster=cluster)
    monkeypatch.setenv("OMPI_MCA_orte_hnp_uri", "1.0;tcp://a:1")  # Version 4, which needs none.
    processes.join(cluster=cluster)
    assert [options["cluster_detection_method"] for _, options in calls] == [method, None]


def test_worker_of_a_slice_on_its_own(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 4)
    with pytest.raises(UserError, match="slice has 4 workers.*with --distributed"):
        processes.check()


@pytest.mark.parametrize("first", [True, False])
def test_only_the_first_process_waits_after_an_error(first, monkeypatch):
    # The end of the first is that of the others too, even of one that has said why and waits.
    waits, statuses = [], []
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(processes, "first", lambda: first)
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(os, "_exit", statuses.append)
    processes.end(processes.USER_ERROR)
    assert waits == [processes.REPORT_S] * first
    assert statuses == [processes.USER_ERROR]


IMPATIENT = """if True:
    import functools
    from pixel_rnn_jax import main
    from pixel_rnn_jax.runtime import processes
    processes.join = functools.partial(processes.join, timeout_s=2)
    main.run()
"""


@pytest.mark.parametrize(
    ("flags", "status", "message"),
    [
        (["--distributed"], 2, "--distributed finds no Cloud TPU, SLURM, Open MPI or"),
        (["--process_id=0"], 3, "not all processes have met at 127.0.0.1:{} within 2 s"),
        (["--process_id=1"], 3, "not all processes have met at 127.0.0.1:{} within 2 s"),
        (["--process_id=0"], 2, "the first process cannot listen at port {} .*already in use"),
    ],
    ids=["no cluster", "no second process", "no first process", "port is taken"],
)
def test_one_sentence_where_the_processes_do_not_meet(flags, status, message, tmp_path):
    with socket.create_server(("0.0.0.0", 0)) as taken:
        port = taken.getsockname()[1]
        if "listen" not in message:
            taken.close()
        if "--distributed" not in flags:
            flags = [*flags, f"--coordinator=127.0.0.1:{port}", "--num_processes=2"]
        words = programs.train_words(tmp_path / "run")
        errors = programs.run(sys.executable, "-c", IMPATIENT, *words, *flags, status=status).stderr
    [line] = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert re.match(f"error: {message.format(port)}", line)
    assert "Traceback" not in errors and "stack trace" not in errors
    assert not (tmp_path / "run").exists()
