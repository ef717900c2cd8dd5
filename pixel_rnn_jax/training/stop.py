"""Stopping a training by SIGTERM or Ctrl-C, in all processes after the same step."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh

from pixel_rnn_jax.system import devices
from pixel_rnn_jax.training.step import Metrics


class StopRequest:
    """The number, in `signal`, of the first SIGTERM or Ctrl-C of this process; None until then."""

    signal: int | None = None

    def flags(self, mesh: Mesh) -> Array | None:
        """Returns this process's stop flag, sharded over the mesh; None for a single process."""
        if jax.process_count() == 1:
            return None
        return devices.shard_batch(mesh, np.full(mesh.local_mesh.size, self.signal is not None))

    def agreed(self, previous: Metrics | None) -> bool:
        """Whether to stop now: the metrics of the step before say the same to all processes."""
        if jax.process_count() == 1:
            return self.signal is not None
        return previous is not None and float(previous.stop) > 0


@contextlib.contextmanager
def stop_on_signal() -> Iterator[StopRequest]:
    """Catches SIGTERM and Ctrl-C; a signal more than 1 s after the first has its default effect.

    GNU timeout sends a SIGTERM to the process, and at once another to its group.
    """
    request, start = StopRequest(), 0.0
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal start
        if request.signal is None:
            request.signal, start = number, time.monotonic()
            os.write(2, b"finishing the step; a signal after a second ends at once\n")
        elif time.monotonic() - start > 1:
            restore()
            signal.raise_signal(number)

    # Only the main thread may set handlers. A program in the background ignores Ctrl-C already.
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, note) or signal.SIG_DFL
    try:
        yield request
    finally:
        restore()
