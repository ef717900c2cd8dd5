"""Output of a command on the terminal: remarks, results, and progress bars."""

import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO, TypeVar

import jax
import tqdm

from pixel_rnn_jax.runtime import processes

T = TypeVar("T")


_quiet = False  # Whether only results are printed.
_as_json = False  # Whether they are printed as JSON.
_lost = False  # Whether a line could not be printed.


@contextlib.contextmanager
def printing(*, quiet: bool, as_json: bool) -> Iterator[None]:
    """Sets what is printed within the `with`, as --quiet and --json say."""
    global _quiet, _as_json
    before = _quiet, _as_json
    _quiet, _as_json = quiet, as_json
    try:
        yield
    finally:
        _quiet, _as_json = before


def say(text: str) -> None:
    """Prints a line that is no result: not with --quiet, and with --json on the standard error."""
    if not _quiet:
        _print(text, sys.stderr if _as_json else sys.stdout)


def show(text: str) -> None:
    """Prints a line of the results; with --json there is `show_json` instead."""
    if not _as_json:
        _print(text, sys.stdout)


def show_json(**results: Any) -> None:
    """Prints the results as one object if --json asks for it; what is not finite becomes null."""
    if _as_json:
        _print(json.dumps(_finite(results), allow_nan=False), sys.stdout)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _print(text: str, stream: TextIO) -> None:
    """Prints a line in the first process only; what cannot be printed stops no work.

    Characters that the terminal lacks are replaced. If nothing can be printed any more, as after
    `| head` or on a full disk, the standard error says so once; see `lost_lines`.
    """
    global _lost
    if not processes.first():
        return
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.replace("±", "+-").encode(encoding, "replace").decode(encoding)
    try:
        print(text, file=stream, flush=True)
    except OSError as error:
        _lost = True
        why = error.strerror or error
        with contextlib.suppress(OSError):
            print(
                f"error: nothing can be printed any more ({why}); the work goes on", file=sys.stderr
            )
        with contextlib.suppress(OSError):  # Python would write what is left at the end, and fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def lost_lines() -> bool:
    """Returns whether a line could not be printed since this was last asked."""
    global _lost
    lost, _lost = _lost, False
    return lost


def no_bar() -> bool | None:
    """Returns what tqdm takes as `disable`: None for bars on a terminal only."""
    return None if processes.first() and not _quiet else True


def bar(items: Iterable[T], total: int, desc: str, unit: str) -> "tqdm.tqdm[T]":
    """Returns a progress bar over `items`, shown after three seconds and on a terminal only."""
    return tqdm.tqdm(
        items, total=total, desc=desc, unit=unit, delay=3, leave=False, disable=no_bar()
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
