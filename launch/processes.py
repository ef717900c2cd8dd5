"""Runs main as several processes on this machine, for `processes.sh`, which installs it first.

Needs nothing but Python: the processes import JAX, this one only looks after them. Before the words
of `processes.sh` comes the Python that runs main.
"""

import contextlib
import functools
import itertools
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
GRACE_S = 60
"""How long the others have when one has ended before its time; a heartbeat takes half of it."""
USER_ERROR, LOST = 2, 3
"""Exit statuses of main: what to put right was said; another process is missing."""


@dataclass(frozen=True)
class Job:
    """What is to run.

    Attributes:
        python: The interpreter.
        count: Number of processes.
        restarts: How often to start again after a failure.
        words: Verb and flags of main.
    """

    python: str
    count: int
    restarts: int
    words: list[str]

    def command(self, index: int, port: int | str) -> list[str]:
        """Returns the command of one process, which finds the others at a port."""
        return [
            *(self.python, "-m", "pixel_rnn_jax.main", *self.words),
            f"--coordinator=127.0.0.1:{port}",
            f"--num_processes={self.count}",
            f"--process_id={index}",
        ]

    def environment(self, index: int) -> dict[str, str]:
        """Returns what gives one process its share of the machine."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        share = {"JAX_NUM_CPU_DEVICES": str(max(1, (cores or 1) // self.count))} | {
            name: value for name, value in os.environ.items() if name == "JAX_NUM_CPU_DEVICES"
        }
        if own := _gpus() // self.count:
            ids = range(index * own, (index + 1) * own)
            share["JAX_LOCAL_DEVICE_IDS"] = ",".join(map(str, ids))
        return share


def main(arguments: list[str]) -> int:
    """Runs what the words after the script's name ask for; returns the exit status."""
    try:
        job, dry = _parse(arguments)
    except ValueError as error:
        print(f"error: {error}; see --help", file=sys.stderr)
        return USER_ERROR
    if dry:
        for index in range(job.count):
            share = [f"{name}={value}" for name, value in job.environment(index).items()]
            print(shlex.join(["env", *share, *job.command(index, "PORT")]))
        return 0
    signalled: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:  # As nohup has it.
            signal.signal(number, lambda number, frame: signalled.append(number))
    for left in range(job.restarts, -1, -1):
        status = _run(job, signalled)
        if status in (0, USER_ERROR, 128 + signal.SIGTERM) or signalled or not left:
            break
        print(f"starting all processes again; {left - 1} more times if need be", file=sys.stderr)
    return status


def _parse(arguments: list[str]) -> tuple[Job, bool]:
    python, count, *words = arguments
    if not re.fullmatch("[1-9][0-9]*", count):
        raise ValueError(f"the first word must be the number of processes, such as 2, got {count}")
    restarts, dry = 0, False
    while words and re.match("--(restarts|dry_run)", words[0]):
        option = words.pop(0)
        if number := re.fullmatch("--restarts=([0-9]+)", option):
            restarts = int(number[1])
        elif option == "--dry_run":
            dry = True
        else:
            raise ValueError(f"--restarts must be a number, as in --restarts=3, got {option}")
    verb = words.pop(0) if words and not words[0].startswith("-") else "train"
    if verb not in ("train", "evaluate"):
        raise ValueError(f"{verb} needs one process: launch/local.sh runs it")
    given = any(re.match("--?(config|workdir)(=|$)", word) for word in words)
    if verb == "train" and not given:  # A workdir may hold a run with its own config.
        words = [f"--config={ROOT / 'configs' / 'digits.py'}", *words]
    if 0 < (gpus := _gpus()) < int(count):
        raise ValueError(
            f"there are {count} processes for {gpus} GPUs: start fewer, or give JAX_PLATFORMS=cpu "
            "in the environment"
        )
    return Job(python, int(count), restarts, [verb, *words]), dry


@functools.cache
def _gpus() -> int:
    """Returns how many NVIDIA GPUs JAX would use."""
    platforms = os.environ.get("JAX_PLATFORMS") or "cuda"
    if not {"cuda", "gpu"} & set(platforms.split(",")):
        return 0
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        names = visible.split(",")  # CUDA ignores what comes after one that is impossible.
        return len(list(itertools.takewhile(lambda name: name not in ("", "-1"), names)))
    try:
        found = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    except OSError:
        return 0
    return len(re.findall("^GPU ", found.stdout, re.MULTILINE))


def _run(job: Job, signalled: list[int]) -> int:
    """Starts all processes, waits for them, and says what went wrong; returns one exit status.

    Each signal is passed on: after the first they save and stop, after another they end.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = Path(tempfile.mkdtemp(prefix="processes-"))
    processes = []
    for index in range(job.count):
        with contextlib.ExitStack() as stack:
            log = None
            if index:
                log = stack.enter_context((logs / f"{index}.log").open("wb"))
                print(f"process {index} writes to {log.name}", flush=True)
            processes.append(
                subprocess.Popen(
                    job.command(index, port),
                    env=os.environ | job.environment(index),
                    stdout=log,
                    stderr=log and subprocess.STDOUT,
                    start_new_session=True,  # Ctrl-C comes to this script, which passes it on.
                )
            )
    told, deadline, order, killed = 0, None, list[int](), set[int]()
    while len(order) < job.count:
        time.sleep(0.2)
        while told < len(signalled):
            told += 1
            for process in processes:
                process.terminate()
        for index, process in enumerate(processes):
            if index not in order and process.poll() is not None:
                order.append(index)
        failed = any(_status(processes[index]) not in (0, 143) for index in order)
        if failed and deadline is None:
            deadline = time.monotonic() + GRACE_S
        if deadline and time.monotonic() > deadline:
            for index, process in enumerate(processes):
                if process.poll() is None:
                    killed.add(index)
                    process.kill()
    statuses = {index: _status(processes[index]) for index in order}
    for index, status in statuses.items():
        if status not in (0, 143):
            how = "hung and was killed" if index in killed else _how(status)
            print(f"process {index} {how}{_last_words(logs, index)}", file=sys.stderr)
    # That of the process which the others have lost says more than theirs.
    return next(
        (status for status in statuses.values() if status not in (0, LOST, 128 + signal.SIGABRT)),
        max(statuses.values()),
    )


def _status(process: subprocess.Popen) -> int:
    """Returns the exit status as a shell reports it."""
    return 128 - process.returncode if process.returncode < 0 else process.returncode


def _how(status: int) -> str:
    if status in (LOST, 128 + signal.SIGABRT):
        return f"has ended because it lacked another one (status {status})"
    if status == 128 + signal.SIGKILL:
        return "was killed (SIGKILL; perhaps the machine was out of memory)"
    if status > 128:
        return f"was ended by {signal.Signals(status - 128).name}"
    return f"has ended with status {status}"


def _last_words(logs: Path, index: int) -> str:
    """Returns the error that a process with a log of its own has written there."""
    path = logs / f"{index}.log"
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    errors = [line for line in lines if re.match(r"error: |\w*Error\b", line)]
    return f": {errors[-1][:300]}" if errors else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
