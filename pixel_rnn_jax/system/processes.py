"""The processes of one run: how they meet, exchange values, and end.

They meet in compiled collectives, while a checkpoint is saved, and in `all_gather`.
"""

import os
import re
import sys
import traceback
from argparse import Namespace
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils

from pixel_rnn_jax.system.errors import PEER_LOST, UserError

HEARTBEAT_S = 30
"""A process that has been silent for this long counts as dead, and the others end too."""


def join(flags: Namespace) -> None:
    """Connects the processes of a run, if there are several; call it before JAX uses a device.

    The first listens at --coordinator=HOST:PORT. With --distributed JAX asks the cluster.
    """
    coordinator, count, index = flags.coordinator, flags.num_processes, flags.process_id
    values = coordinator, count, index
    if (alone := values == (None, None, None)) and not flags.distributed:
        return
    has_port = bool(re.search(r":\d+$", coordinator or ""))
    if not alone and not (has_port and count and (index or 0) in range(count)):
        needed = "--coordinator=HOST:PORT, --num_processes=N and --process_id, from 0 to N - 1"
        raise UserError(f"give {needed} together, got {values}")
    # Its handler would swallow a SIGTERM that comes while nobody asks for it; `train` has its own.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            *values,
            # In a SLURM allocation, JAX would else pick the devices as if srun had started it.
            cluster_detection_method="deactivate" if coordinator else None,
            heartbeat_timeout_seconds=HEARTBEAT_S,
        )
    except ValueError as error:  # It finds no cluster.
        raise UserError(f"--distributed: {error}") from error
    # Connects CPU processes, which else wait for each other only 30 s, after opening their data.
    multihost_utils.sync_global_devices("joined")


def is_first() -> bool:
    """Whether this is the process that writes records and prints."""
    return bool(jax.process_index() == 0)


def index_and_count() -> dict[str, int]:
    """Returns the index of this process and how many there are, as `data.train_batches` takes."""
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def all_gather(array: np.ndarray) -> np.ndarray:
    """Returns the arrays of all processes, stacked along a new first axis, in every process."""
    return np.asarray(multihost_utils.process_allgather(array)).reshape(-1, *array.shape)


def whole(array: jax.Array) -> np.ndarray:
    """Returns all rows of an array that may be split over the processes."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def end(status: int, error: BaseException | None = None) -> NoReturn:
    """Prints `error`, and ends this process at once: a normal exit would wait for the others.

    The exit status is `PEER_LOST` if the error is of another process.
    """
    # Not one class: the CPU's collectives raise ValueError, others JaxRuntimeError.
    signs = "gloo|nccl|closed by peer|heartbeat|coordination service|barrier"
    try:
        if error is not None:
            status = PEER_LOST if re.search(signs, str(error), re.IGNORECASE) else status
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:  # Even if nothing can be printed.
        os._exit(status)
