"""What a command prints on the terminal: lines, and a progress bar for what takes long."""

import time
from collections.abc import Iterable
from typing import Any, TypeVar

import jax
import tqdm

from pixel_rnn_jax.runtime import processes

T = TypeVar("T")
PyTree = Any


def say(text: str) -> None:
    """Prints a line, in the first of several processes."""
    if processes.first():
        print(text, flush=True)


def bar(items: Iterable[T], total: int, desc: str, unit: str) -> "tqdm.tqdm[T]":
    """Returns a bar that appears after three seconds, on a terminal alone, and then vanishes.

    It counts items as it passes them on, or by `update`, up to `total`. `desc` says what is done
    with them, and `unit` what they are.
    """
    disable = None if processes.first() else True
    return tqdm.tqdm(
        items, total=total, desc=desc, unit=unit, delay=3, leave=False, disable=disable
    )


def show_time(progress: "tqdm.tqdm[Any]", results: PyTree) -> None:
    """On a terminal, waits for results while the bar shows the time; elsewhere returns at once."""
    if progress.disable:
        return
    start, pause = time.monotonic(), 0.001
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(results)):
        time.sleep(pause)
        pause = min(2 * pause, 0.5)
        if time.monotonic() - start > (progress.delay or 0):
            progress.refresh()
