"""The processes of one run: how they find each other, exchange values, and end.

Every process runs the same program on its own devices and its own share of the data. They meet in
the collectives of compiled functions, while a checkpoint is saved, and in `all_gather`.
"""

import importlib.util
import os
import re
import socket
import sys
import threading
import time
import traceback
import zlib
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from pixel_rnn_jax.errors import LOST, USER_ERROR, UserError

HEARTBEAT_S = 30
"""A process that has been silent for this long counts as dead, and the others end too."""
START_S = 300
"""How long the processes wait for each other at the start."""
STORAGE_S = 60
"""After this long, a file that one process has written is visible to all on network storage too."""
REPORT_S = 5
"""How long the first process outlives its own `UserError`. The others end when it does, and this
leaves them the time to print the errors that they have found themselves."""

_BY_HAND = "name the meeting point with --coordinator, --num_processes and --process_id"
_begun = False  # Whether `join` has called jax.distributed.initialize, successfully or not.


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    cluster: bool | None = None,
    timeout_s: float = START_S,
) -> None:
    """Connects the processes of a run, if there are several; call it before JAX uses a device.

    Args:
        coordinator: HOST:PORT at which the first process listens.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        cluster: Whether to ask the cluster for these three; None asks if `started_by` finds one.
        timeout_s: How long to wait for the other processes.

    Raises:
        UserError: The first three are incomplete or impossible; the cluster does not know them; the
            port cannot be opened; or a package is missing.
    """
    given = coordinator, num_processes, process_id
    if given != (None, None, None):
        if cluster is not None:
            raise UserError("leave out one of --distributed and --coordinator")
        _check_flags(*given)
    elif cluster is False or (cluster is None and started_by() is None):
        return
    detection = _cluster_detection(coordinator)
    # Its handler would swallow a SIGTERM that comes while nobody asks for it; `train` has its own.
    jax.config.update("jax_enable_preemption_service", False)
    global _begun
    _begun = True
    waiting = threading.Timer(timeout_s, _give_up, (coordinator, timeout_s))
    waiting.start()
    try:
        jax.distributed.initialize(
            *given,
            cluster_detection_method=detection,
            # Later than the timer, since JAX would end the process with a stack trace.
            initialization_timeout=int(timeout_s) + 60,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except Exception as error:
        raise UserError(_cause(coordinator, str(error).partition("\n")[0])) from error
    finally:
        waiting.cancel()
    # Connects CPU processes, which else do so after opening their data and wait 30 s at most.
    multihost_utils.sync_global_devices("joined")


def started_by() -> str | None:
    """Returns the name of the cluster that started this process as one of several, or None."""
    several = {
        "SLURM": "SLURM_STEP_NODELIST" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1",
        "Open MPI": os.environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1",
        "Cloud TPU": "," in os.environ.get("TPU_WORKER_HOSTNAMES", ""),
    }
    return next((name for name, started in several.items() if started), None)


def joined() -> bool:
    """Whether this process is one of several, or has tried to become one."""
    return _begun or bool(jax.distributed.is_initialized())


def check() -> None:
    """Checks that a process which shares its devices with others has joined them.

    Raises:
        UserError: It is a worker of a TPU slice and runs alone.
    """
    if jax.process_count() > 1 and not joined():
        raise UserError(
            f"this TPU slice has {jax.process_count()} workers: run the same command on all of "
            "them, with --distributed"
        )


def first() -> bool:
    """Whether this is the process that writes records and prints."""
    return bool(jax.process_index() == 0)


def all_gather(array: np.ndarray) -> np.ndarray:
    """Returns the arrays of all processes, stacked along a new first axis, in every process."""
    return np.asarray(multihost_utils.process_allgather(array)).reshape(-1, *array.shape)


def all_equal(text: str) -> bool:
    """Whether all processes have given the same text."""
    checksum = zlib.crc32(text.encode())
    return len(set(all_gather(np.asarray(checksum, np.uint32)).tolist())) == 1


def is_loss(error: BaseException) -> bool:
    """Whether an error says that another process of the run has ended or cannot be reached."""
    # Not one class: the CPU's collectives raise ValueError, others JaxRuntimeError.
    signs = "gloo|nccl|closed by peer|heartbeat|coordination service|barrier"
    return joined() and bool(re.search(signs, str(error), re.IGNORECASE))


def end(status: int, error: BaseException | None = None) -> NoReturn:
    """Ends this process at once, where a normal exit would wait for the others of its run.

    Prints `error`, if there is one; if it `is_loss`, the exit status is `LOST`.
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
            time.sleep(REPORT_S)
    finally:  # Even if nothing can be printed.
        os._exit(status)


def _check_flags(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> None:
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
        try:  # JAX 0.12 crashes if its service cannot listen.
            socket.create_server(("", int(parts[1]))).close()
        except OSError as error:
            raise UserError(
                f"the first process cannot listen at port {parts[1]} of --coordinator ({error}): "
                "choose another port"
            ) from error


def _cluster_detection(coordinator: str | None) -> str | None:
    """Returns the `cluster_detection_method` of JAX; None lets JAX find the cluster itself."""
    if coordinator:
        return "deactivate"
    cluster = started_by()
    if cluster == "Open MPI" and "OMPI_MCA_orte_hnp_uri" not in os.environ:
        # From version 5 on only MPI itself can tell its processes where the first one is.
        _need("mpi4py", "the processes of Open MPI 5 meet through mpi4py")
        return "mpi4py"
    if cluster is None and "KUBERNETES_SERVICE_HOST" in os.environ:
        _need("kubernetes", "--distributed asks Kubernetes through its package")
    return None


def _need(package: str, reason: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise UserError(f"{reason}: pip install {package}, or {_BY_HAND}")


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
    where, advice = "", f"by {started_by() or 'the cluster'}, or give --nodistributed"
    if coordinator:
        where = f" at {coordinator}"
        advice = "with the same --coordinator and --num_processes and its own --process_id"
    print(
        f"error: not all processes have met{where} within {timeout_s:.0f} s: check that each was "
        f"started, {advice}",
        file=sys.stderr,
    )
    end(LOST)
