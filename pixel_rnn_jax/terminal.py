"""Output of a command on the terminal: remarks, results, and progress bars."""

import contextlib
import io
import json
import math
import os
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

import jax
import tqdm

from pixel_rnn_jax import outputs
from pixel_rnn_jax.runtime import processes

SILENCE = 10.0
"""Seconds after which a line says how far the work is, where no bar does."""
_quiet = False  # Whether only results are printed.
_as_json = False  # Whether they are printed as JSON.
_results_alone = False  # Whether remarks go to the standard error.
_last_line = time.monotonic()  # When a line was printed.
_lost = False  # Whether a line could not be printed.
_open: list["Bar"] = []  # The last one is of the work inside the others.


@contextlib.contextmanager
def printing(*, quiet: bool, as_json: bool, out: str = "") -> Iterator[None]:
    """Sets what is printed within the `with`, as --quiet, --json and --out say."""
    global _quiet, _as_json, _results_alone
    before = _quiet, _as_json, _results_alone
    _quiet, _as_json = quiet, as_json
    _results_alone = as_json or outputs.is_standard_output(out)
    try:
        yield
    finally:
        _quiet, _as_json, _results_alone = before


def say(text: str) -> None:
    """Prints a line that is no result, not with --quiet.

    It goes to the standard error with --json, and where the output is the standard output.
    """
    if not _quiet:
        _print(text, sys.stderr if _results_alone else sys.stdout)


def show(text: str) -> None:
    """Prints a line of the results; with --json there is `show_json` instead."""
    if not _as_json:
        _print(text, sys.stdout)


def show_file(out: str, text: str) -> None:
    """Prints a line about a file that was written, unless that is the standard output itself."""
    if not outputs.is_standard_output(out):
        show(f"{out}: {text}")


def counted(number: int, noun: str) -> str:
    """Returns "1 image", "2 images", "60,000 images"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


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
    global _last_line, _lost
    if not processes.first():
        return
    _last_line = time.monotonic()
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
        with contextlib.suppress(OSError):
            outputs.abandon(stream)


def lost_lines() -> bool:
    """Returns whether a line could not be printed since this was last asked."""
    global _lost
    lost, _lost = _lost, False
    return lost


def bar(items: Iterable[Any], total: int, desc: str, units: str) -> "Bar":
    """Returns a progress bar over `items`, shown after three seconds."""
    return Bar(items, total=total, desc=desc, unit=units, delay=3, leave=False)


class Bar(tqdm.tqdm):
    """A bar of tqdm in the first process, on a terminal or in a notebook.

    Elsewhere, as in a log file, the standard error gets a line whenever nothing was printed for
    `SILENCE` seconds. A thread sees to that while the work itself is silent, as in a compilation.

    Attributes:
        drawn: Whether there is a bar, not lines.
    """

    def __init__(self, items: Any = None, **options: Any):
        self.drawn, self._over = _can_draw(), threading.Event()
        self._shown = False  # By the thread.
        file = None if self.drawn else _Nowhere()
        hidden = _quiet or not processes.first()
        super().__init__(items, file=file, disable=hidden, **options)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        if not self.disable:
            _open.append(self)
            self._thread.start()

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        """Shows the bar, or a line if it is time for one."""
        global _last_line
        if self.drawn:
            super().display(msg, pos)
        elif _open and _open[-1] is self and time.monotonic() >= _last_line + SILENCE:
            _last_line = time.monotonic()
            values = self.format_dict
            text = f"{self.desc}: {values['n']:,} of {values['total']:,} {self.unit}"
            with contextlib.suppress(OSError):
                print(
                    f"{text}, {self.format_interval(values['elapsed'])}",
                    file=sys.stderr,
                    flush=True,
                )

    def close(self) -> None:
        """Ends the bar."""
        if not self._over.is_set() and not self.disable:
            self._over.set()
            self._thread.join()
            _open.remove(self)
            if self._shown:
                self.last_print_t = time.time()  # So that tqdm clears it.
        super().close()

    def _watch(self) -> None:
        begin = time.monotonic() + (self.delay or 0)
        while not self._over.wait(0.5):
            if time.monotonic() >= begin:
                self.refresh()
                self._shown = True


class _Nowhere(io.TextIOBase):
    """Where a bar goes that is not drawn."""

    def write(self, text: str) -> int:
        return len(text)


def _can_draw() -> bool:
    """Returns whether the standard error is a terminal with columns, or shown by a notebook."""
    if "ipykernel" in sys.modules:
        return True
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns > 0
    except (OSError, ValueError):
        return False


def wait(results: Any) -> None:
    """Waits for a PyTree of arrays in such a way that Ctrl-C is heard."""
    start = time.monotonic()
    while not all(leaf.is_ready() for leaf in jax.tree.leaves(results)):
        time.sleep(min(0.5, max(0.001, (time.monotonic() - start) / 50)))


def log(text: str) -> None:
    """Prints a remark on the standard error, above any progress bar; the first process alone."""
    if processes.first():
        tqdm.tqdm.write(text, file=sys.stderr)


def print_result(text: str) -> None:
    """Prints a line of the results on the standard output; the first process alone."""
    if processes.first():
        print(text, flush=True)


def progress(items: Iterable[Any], total: int, description: str, unit: str) -> Iterable[Any]:
    """Returns `items` with a progress bar, which a terminal shows after three seconds."""
    hidden = None if processes.first() else True  # None: where there is no terminal.
    return tqdm.tqdm(
        items, total=total, desc=description, unit=unit, delay=3, leave=False, disable=hidden
    )


def plural(number: int, noun: str) -> str:
    """Returns "1 image", "2 images", "60,000 images"."""
    return f"{number:,} {noun}{'s' * (number != 1)}"
