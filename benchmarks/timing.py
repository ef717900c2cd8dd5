"""Timing of what is compared: in turn, in one run, as medians; shared by the benchmarks.

What needs a set-up of its own (other devices, another interpreter) is built in a `Worker`, a
process that waits while others have their turn: a machine that is slower for a while is slower for
all. Only the standard library is imported here, so that interpreters without JAX can run workers.
"""

import argparse
import contextlib
import functools
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self, TypeVar

sys.path.insert(0, str(Path(__file__).parents[1]))  # The package of this checkout.

PYTHON = ".".join(map(str, sys.version_info[:3]))
LONGEST_S = 60.0
"""A measurement that has taken so long gets no further turn."""

Name = TypeVar("Name", bound=Hashable)
Timer = Callable[[], float]
"""Makes some calls and returns their median time in seconds."""


class Candidate(NamedTuple):
    """What a worker has built.

    Attributes:
        timers: By the name of what each measures.
        facts: What else is to be printed, such as sizes and versions; they must fit into JSON.
    """

    timers: dict[str, Timer]
    facts: dict[str, Any]


def parser(doc: str | None, words: bool = False) -> argparse.ArgumentParser:
    """Returns a parser of a script's command line, whose --help prints its docstring.

    With `words` the arguments choose rows of a table, by `chosen`.
    """
    formatter = argparse.RawDescriptionHelpFormatter
    flags = argparse.ArgumentParser(description=doc, formatter_class=formatter, allow_abbrev=False)
    if words:
        flags.add_argument("words", nargs="*", metavar="WORD", help="rows whose name holds one")
    return flags


def chosen(names: Iterable[str], words: Sequence[str]) -> list[str]:
    """Returns the names that hold one of the words; without words, all."""
    return [name for name in names if not words or any(word in name for word in words)]


def add_flags(flags: argparse.ArgumentParser) -> None:
    """Adds how often and how long things are timed."""
    flags.add_argument("--rounds", type=int, default=5, help="turns; default: 5")
    flags.add_argument("--seconds", type=float, default=1.0, help="of calls in a turn; default: 1")


def timer(function: Callable[[], Any], seconds: float, warm_up: int = 2) -> Timer:
    """Returns a timer of `function`, which returns when its result is there.

    It is called `warm_up` times here, and in each turn for about `seconds`, at least once.
    """
    for _ in range(warm_up):
        function()

    def measure() -> float:
        times: list[float] = []
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            function()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    return measure


def in_turn(timers: Mapping[Name, Timer], rounds: int) -> dict[Name, float]:
    """Returns the median of each timer over its turns."""
    return {name: statistics.median(each) for name, each in all_turns(timers, rounds).items()}


def all_turns(timers: Mapping[Name, Timer], rounds: int) -> dict[Name, list[float]]:
    """Gives every timer a turn in each round, and returns what each has measured."""
    times: dict[Name, list[float]] = {name: [] for name in timers}
    spent = dict.fromkeys(timers, 0.0)
    for _ in range(rounds):
        for name, measure in timers.items():
            if spent[name] < LONGEST_S:
                start = time.perf_counter()
                times[name].append(measure())
                spent[name] += time.perf_counter() - start
    return times


class Worker:
    """A benchmark script in a process of its own; its `timers` and `facts` are its candidate's."""

    def __init__(self, script: str, python: str = sys.executable, **options: Any):
        command = [python, script, "--worker", json.dumps(options)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        names, self.facts = self._answer()
        self.timers = {name: functools.partial(self._measure, name) for name in names}

    def _measure(self, name: str) -> float:
        assert self._process.stdin
        print(name, file=self._process.stdin, flush=True)
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"a worker ended with exit status {self._process.wait()}")
        return json.loads(line)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.__exit__(*error)  # Closes its pipes, at which it ends.


def run(main: Callable[[], None], build: Callable[..., Candidate]) -> None:
    """Runs a script's `main`; in a worker, serves what its `build` returns."""
    if sys.argv[1:2] != ["--worker"]:
        main()
        return
    answers = sys.stdout
    with contextlib.redirect_stdout(sys.stderr):  # What libraries print is no answer.
        timers, facts = build(**json.loads(sys.argv[2]))
        print(json.dumps([[*timers], facts]), file=answers, flush=True)
        for line in sys.stdin:
            print(json.dumps(timers[line.strip()]()), file=answers, flush=True)


def machine() -> str:
    """Returns the devices of this process and the versions of what it runs on."""
    import jax

    from pixel_rnn_jax.system import devices

    device = devices.hardware(jax.device_count())["device"]
    return f"{jax.device_count()} x {device} (JAX {jax.__version__}, Python {PYTHON})"
