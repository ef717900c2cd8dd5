"""Output of a command on the terminal: lines and progress bars."""

import contextlib
import os
import sys
import time
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import tqdm

from pixel_rnn_jax.runtime import processes

T = TypeVar("T")


_lost = False  # Whether a line could not be printed.


def say(text: str) -> None:
    """Prints a line in the first process only; what cannot be printed stops no work.

    Characters that the terminal lacks are replaced. If nothing can be printed any more, as after
    `| head` or on a full disk, the standard error says so once; see `lost_lines`.
    """
    global _lost
    if not processes.first():
        return
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    try:
        print(text, flush=True)
    except OSError as error:
        _lost = True
        why = error.strerror or error
        with contextlib.suppress(OSError):
            print(
                f"error: nothing can be printed any more ({why}); the work goes on", file=sys.stderr
            )
        with contextlib.suppress(OSError):  # Python would write what is left at the end, and fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def lost_lines() -> bool:
    """Returns whether `say` could not print a line since this was last asked."""
    global _lost
    lost, _lost = _lost, False
    return lost


def bar(items: Iterable[T], total: int, desc: str, unit: str) -> "tqdm.tqdm[T]":
    """Returns a progress bar over `items`, shown after three seconds and on a terminal only."""
    disable = None if processes.first() else True
    return tqdm.tqdm(
        items, total=total, desc=desc, unit=unit, delay=3, leave=False, disable=disable
    )


def show_time(progress: "tqdm.tqdm[Any]", results: Any) -> None:
    """Waits for a PyTree of arrays while the bar shows the time; returns at once without a bar."""
    if progress.disable:
        return
    start, pause = time.monotonic(), 0.001
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(results)):
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
        if time.monotonic() - start > (progress.delay or 0):
            progress.refresh()
