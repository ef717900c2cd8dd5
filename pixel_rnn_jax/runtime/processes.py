"""The processes of one run: how they meet, exchange values, and end.

Every process runs the same program on its own devices and its own share of the data. They meet in
the collectives of compiled functions, while a checkpoint is saved, and in `all_gather`.
"""

import os
import re
import sys
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
REPORT_S = 5
"""How long the first process outlives its own `UserError`: JAX ends the others as soon as it is
gone, before they have printed theirs."""


def join(
    coordinator: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    distributed: bool | None = None,
) -> None:
    """Connects the processes of a run, if there are several; call it before JAX uses a device.

    Args:
        coordinator: HOST:PORT at which the first process listens.
        num_processes: Number of processes.
        process_id: Index of this process, from 0.
        distributed: Without these three: True lets JAX ask the cluster for them, False runs alone,
            None asks SLURM, Open MPI or a Cloud TPU that has started several processes.

    Raises:
        UserError: One or two of the first three are missing, or the coordinator has no port.
    """
    values = coordinator, num_processes, process_id
    flags = "--coordinator", "--num_processes", "--process_id"
    missing = [flag for flag, value in zip(flags, values, strict=True) if value is None]
    if len(missing) == 3:
        if distributed is None:
            distributed = (
                # Of a step (srun): the batch script itself has the number of tasks too.
                ("SLURM_STEP_NODELIST" in os.environ and os.environ.get("SLURM_NTASKS", "1") != "1")
                or os.environ.get("OMPI_COMM_WORLD_SIZE", "1") != "1"
                or "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
            )
        if not distributed:
            return
    elif missing:
        raise UserError(f"give {', '.join(flags)} together; missing: {', '.join(missing)}")
    elif not re.search(r":\d+$", str(coordinator)):
        raise UserError(f"--coordinator must be HOST:PORT, got {coordinator}")
    # Its handler would swallow a SIGTERM that comes while nobody asks for it; `train` has its own.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        *values,
        # In a SLURM allocation, JAX would else pick the devices as if srun had started it.
        cluster_detection_method="deactivate" if coordinator else None,
        heartbeat_timeout_seconds=HEARTBEAT_S,
    )
    # Connects CPU processes, which else wait for each other only 30 s, after opening their data.
    multihost_utils.sync_global_devices("joined")


def joined() -> bool:
    """Whether this process is one of several."""
    return bool(jax.distributed.is_initialized())


def check() -> None:
    """Raises a `UserError` in a worker of a TPU slice that runs alone, which would wait forever."""
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
    """Whether all processes have passed the same text."""
    checksum = zlib.crc32(text.encode())
    return len(set(all_gather(np.asarray(checksum, np.uint32)).tolist())) == 1


def end(status: int, error: BaseException | None = None) -> NoReturn:
    """Ends this process at once, where a normal exit would wait for the others of its run.

    Prints `error`, if there is one. The exit status is `LOST` if it says that another process has
    ended or cannot be reached.
    """
    # Not one class: the CPU's collectives raise ValueError, others JaxRuntimeError.
    signs = "gloo|nccl|closed by peer|heartbeat|coordination service|barrier"
    try:
        if error is not None and re.search(signs, str(error), re.IGNORECASE):
            status = LOST
            cause = str(error).partition("\n")[0]
            print(f"error: another process of this run has ended ({cause})", file=sys.stderr)
        elif error is not None:
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        if status == USER_ERROR and first():
            time.sleep(REPORT_S)
    finally:  # Even if nothing can be printed.
        os._exit(status)
