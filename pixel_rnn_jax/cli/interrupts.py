"""What SIGINT and SIGTERM do before a command has anything to put away."""

import os
import signal
from types import FrameType


def leave_at_once() -> None:
    """Makes Ctrl-C end the process: while it imports, an exception could be lost or look wrong."""
    if os.getpid() == 1:  # In a container: the first process ignores what it does not handle.
        signal.signal(signal.SIGTERM, _leave)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # Not ignored.
        signal.signal(signal.SIGINT, _leave)


def raise_again() -> None:
    """Makes Ctrl-C a `KeyboardInterrupt` again, for a command that has things to put away."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _leave(number: int, frame: FrameType | None) -> None:
    os._exit(128 + number)
