"""Output of a command: remarks, results and progress bars, of the first process alone."""

import sys
from collections.abc import Iterable
from typing import Any

import tqdm

from pixel_rnn_jax.system import processes


def log(text: str) -> None:
    """Prints a remark on the standard error, above any progress bar."""
    if processes.is_first():
        tqdm.tqdm.write(text, file=sys.stderr)


def print_result(text: str) -> None:
    """Prints a line of the results on the standard output."""
    if processes.is_first():
        print(text, flush=True)


def progress(items: Iterable[Any], total: int, description: str, unit: str) -> Iterable[Any]:
    """Returns `items` with a progress bar, which a terminal shows after three seconds."""
    hidden = None if processes.is_first() else True  # None: hidden where there is no terminal.
    return tqdm.tqdm(
        items, total=total, desc=description, unit=unit, delay=3, leave=False, disable=hidden
    )


def plural(number: int, noun: str) -> str:
    """Returns "1 image", "2 images", "60,000 images"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
