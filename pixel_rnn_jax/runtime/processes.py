"""Several processes that work on one run: how they find each other, and how one of them ends.

Every process runs the same program on its own devices and its own share of the data. They meet in
the collectives of compiled functions, in the saving of checkpoints, and in `barrier`. What is
written or printed once is the first process's to do.
"""

import importlib.util
import os
import re
import socket
import sys
import threading
import time
import traceback
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from pixel_rnn_jax.errors import UserError

HEARTBEAT_S = 30
"""A process that has not been heard of for so long has died, and the others end too."""
START_S = 300
"""How long the processes wait for each other at the start."""
STORAGE_S = 60
"""After so long a file that one process has written is there for all, on network storage too."""
USER_ERROR = 2
"""The exit status after a `UserError`, which starting again would only repeat."""
SAME_S = 5
"""After a `UserError` the first process gives the others so long to say the same."""
LOST = 3
"""The exit status of a process that lacks another one: it may help to start all again."""

_BY_HAND = "name the meeting point with --coordinator, --num_processes and --process_id"
_begun = False  # whether `join` has begun to use JAX's runtime, successfully or not


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    cluster: bool | None = None,
    timeout_s: float = START_S,
) -> None:
    """Joins the processes of a run, if there are several; to be called before JAX uses a device.

    Args:
        coordinator: HOST:PORT at which the first process waits for the others.
        num_processes: How many there are.
        process_id: Which one this is, from 0 on.
        cluster: Whether to ask the cluster instead, as `jax.distributed.initialize` does (Cloud
            TPU, SLURM, Open MPI, Kubernetes). None does so where `started_by` finds one.
        timeout_s: How long to wait for the others.

    Raises:
        UserError: Only some of the first three are given, or they are impossible; the cluster does
            not say what it was asked for; the coordinator's port cannot be opened; or a package
            is missing: mpi4py for Open MPI from version 5 on, kubernetes for Kubernetes.
    """
    given = coordinator, num_processes, process_id
    alone = given == (None, None, None)
    if not alone:
        if cluster is not None:
            raise UserError("leave out one of --distributed and --coordinator")
        _check(*given)
    elif cluster is False or (cluster is None and started_by() is None):
        return
    detection = _detection(coordinator)
    # Its handler would swallow a SIGTERM that comes while nobody asks for it; `train` has its own.
    jax.config.update("jax_enable_preemption_service", False)
    global _begun
    _begun = True
    waiting = threading.Timer(timeout_s, _give_up, (coordinator, timeout_s))
    waiting.daemon = True
    waiting.start()
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=detection,
            # Later than the timer: JAX would end the process with a stack trace.
            initialization_timeout=int(timeout_s) + 60,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except Exception as error:
        raise UserError(_cause(coordinator, str(error).partition("\n")[0])) from error
    finally:
        waiting.cancel()
    # Now, as connections between CPU processes are given up after 30 seconds, and opening the data
    # may take one of them longer than another.
    barrier("joined")


def started_by() -> str | None:
    """Returns the name of the cluster that has started this process as one of several, or None."""
    several = {
        "SLURM": "SLURM_STEP_NODELIST" in os.environ and _number("SLURM_NTASKS") > 1,
        "Open MPI": _number("OMPI_COMM_WORLD_SIZE") > 1,
        "Cloud TPU": "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""),
    }
    return next((name for name, found in several.items() if found), None)


def joined() -> bool:
    """Whether this process is one of several, or has tried to become one."""
    return _begun or bool(jax.distributed.is_initialized())


def check() -> None:
    """Makes sure that processes which share devices have joined.

    Raises:
        UserError: This is a worker of a TPU slice that runs on its own.
    """
    if jax.process_count() > 1 and not joined():
        raise UserError(
            f"this TPU slice has {jax.process_count()} workers: run the same command on all of "
            "them, with --distributed"
        )


def first() -> bool:
    """Whether this process is the one that writes and prints what is needed once."""
    return bool(jax.process_index() == 0)


def barrier(name: str) -> None:
    """Waits until all processes are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process of the run has gone."""
    # Not one class: the CPU's collectives raise ValueError, others JaxRuntimeError.
    signs = "gloo|nccl|closed by peer|heartbeat|coordination service|barrier"
    return joined() and bool(re.search(signs, str(error), re.IGNORECASE))


def end(status: int, error: BaseException | None = None) -> NoReturn:
    """Ends this process, of several that may be waiting for it.

    The ordinary end waits for the others, which would wait for this one. They notice that it has
    gone.

    Args:
        status: The exit status, unless the error is that another process has gone first.
        error: What has happened, if that has not been printed.
    """
    try:
        if error is not None and is_loss(error):
            status = LOST
            first_line = str(error).partition("\n")[0]
            print(
                "error: another process of this run has ended or cannot be reached, and this one "
                "cannot go on without it; the output of the other may say why; the same command "
                f"goes on from the last checkpoint ({first_line})",
                file=sys.stderr,
            )
        elif error is not None:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        if status == USER_ERROR and jax.distributed.is_initialized() and first():
            time.sleep(SAME_S)  # The others are ended as soon as this process is.
    finally:  # Even where nothing can be printed.
        os._exit(status)


def _check(coordinator: str | None, num_processes: int | None, process_id: int | None) -> None:
    if coordinator is None or num_processes is None or process_id is None:
        raise UserError(
            "--coordinator=HOST:PORT, --num_processes=N and --process_id=I need each other"
        )
    if not (parts := re.fullmatch(r".+:(\d+)", coordinator)) or not 0 < int(parts[1]) < 2**16:
        raise UserError(
            f"--coordinator must be HOST:PORT with a port from 1 to 65535, got {coordinator}"
        )
    if not 0 <= process_id < num_processes:
        raise UserError(
            f"--process_id must be from 0 to --num_processes - 1, got {process_id} of "
            f"{num_processes}"
        )
    if process_id == 0:
        _check_port(int(parts[1]))


def _detection(coordinator: str | None) -> str | None:
    """Returns which of its ways to find a cluster JAX shall take; None leaves it to JAX."""
    if coordinator:
        return "deactivate"
    if started_by() == "Open MPI" and "OMPI_MCA_orte_hnp_uri" not in os.environ:
        # From version 5 on its processes can only ask each other where the first one is.
        if importlib.util.find_spec("mpi4py") is None:
            raise UserError(
                "the processes of Open MPI 5 meet through mpi4py: pip install mpi4py, or "
                f"{_BY_HAND}"
            )
        return "mpi4py"
    kubernetes = "KUBERNETES_SERVICE_HOST" in os.environ and started_by() is None
    if kubernetes and importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            "--distributed asks Kubernetes through its package: pip install kubernetes, or "
            f"{_BY_HAND}"
        )
    return None


def _check_port(port: int) -> None:
    # JAX 0.12 crashes where its service cannot listen.
    try:
        with socket.socket() as own:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            own.bind(("", port))
    except OSError as error:
        raise UserError(
            f"the first process cannot listen at port {port} of --coordinator ({error}): choose "
            "another one"
        ) from error


def _cause(coordinator: str | None, text: str) -> str:
    if coordinator:
        return f"the processes cannot meet at --coordinator={coordinator}: {text}"
    if cluster := started_by():
        return (
            f"{cluster} has started several processes, but they cannot meet ({text}): {_BY_HAND}, "
            "or give --nodistributed to run alone"
        )
    return (
        "--distributed finds no Cloud TPU, SLURM, Open MPI or Kubernetes that has started several "
        f"processes ({text}): give --coordinator, --num_processes and --process_id"
    )


def _give_up(coordinator: str | None, timeout_s: float) -> None:
    if coordinator:
        where = f" at {coordinator}"
        advice = "with the same --coordinator and --num_processes and its own --process_id"
    else:
        where, advice = "", f"by {started_by() or 'the cluster'}, or give --nodistributed"
    print(
        f"error: not all processes have met{where} within {timeout_s:.0f} s: look whether each was "
        f"started, {advice}",
        file=sys.stderr,
    )
    end(LOST)


def _number(variable: str) -> int:
    text = os.environ.get(variable, "")
    return int(text) if text.isdecimal() else 0
