"""Output of a command on the terminal: lines and progress bars."""

import time
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import tqdm

from pixel_rnn_jax.runtime import processes

T = TypeVar("T")


def say(text: str) -> None:
    """Prints a line in the first process only."""
    if processes.first():
        print(text, flush=True)


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
