"""One training at a time in a workdir.

The first process of a run locks the file `lock` in the workdir with `flock`: the kernel releases it
when the process ends, however it ends, so that what a killed run leaves never blocks. Commands that
only read take no lock.

A bucket has no such locks, and some network file systems keep them to one host. So the file also
names its holder, who writes it anew every `BEAT_S` seconds. Where a file from elsewhere is found,
it is watched, and refused if it changes. No clocks are compared.
"""

import contextlib
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator

from etils import epath

from pixel_rnn_jax import terminal
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import processes, storage

BEAT_S = 10
"""Seconds between two signs of life."""
WATCHED_S = 30
"""How long a lock from elsewhere may be silent before it counts as left behind."""


@contextlib.contextmanager
def hold(workdir: epath.Path) -> Iterator[Callable[[], None]]:
    """Keeps other trainings out of a workdir, which is created if it is not there.

    Gives a function which raises a `UserError` once the workdir has gone or is another's. Of
    several processes only the first takes the lock, for all.

    Raises:
        UserError: Another training holds the workdir, or it cannot be written to.
    """
    if not processes.first():
        yield lambda: None
        return
    path = workdir / "lock"
    with contextlib.ExitStack() as stack:
        with storage.writing(workdir):
            workdir.mkdir(parents=True, exist_ok=True)
            lock = _free(path)
            stack.callback(lock.close)
            lock.take()
        ended = threading.Event()
        beating = threading.Thread(target=_beat, args=(lock, ended), daemon=True)
        beating.start()
        try:
            yield lambda: _check(lock, workdir)
        finally:
            ended.set()
            beating.join(BEAT_S)  # Not for a bucket that does not answer.
            with contextlib.suppress(*storage.errors()):
                if lock.own():
                    path.unlink()


def _free(path: epath.Path) -> "_Bucket":
    """Returns a lock that no other training holds."""
    while True:
        lock = _Bucket(path) if "://" in str(path) else _File(path)
        with contextlib.ExitStack() as stack:
            stack.callback(lock.close)
            before = _read(path)
            if before is None and _is_foreign(path):
                raise UserError(
                    f"{path} is not the lock of a training: use another --workdir, or delete it"
                )
            if before and not (lock.sure and before["host"] == socket.gethostname()):
                _watch(path, before)
            if lock.is_there():  # Else its holder has deleted it in the meantime.
                stack.pop_all()
                return lock


class _Bucket:
    """A lock without a kernel that watches over it."""

    sure = False

    def __init__(self, path: epath.Path):
        self.path = path
        self._holder = {
            "host": socket.gethostname(),
            "process": os.getpid(),
            "since": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        }

    def content(self) -> bytes:
        """Returns what the file says now; it always has the same length."""
        return json.dumps({**self._holder, "beat": int(time.time())}).encode()

    def take(self) -> None:
        """Writes the file."""
        self.path.write_bytes(self.content())

    def is_there(self) -> bool:
        """Whether what `take` writes to is the file of this name."""
        return True

    def own(self) -> bool:
        """Whether the file is there and of this process."""
        found = _read(self.path) or {}
        return found.items() >= self._holder.items()

    def close(self) -> None:
        """Frees what it holds."""


class _File(_Bucket):
    """A lock that the kernel watches over, where the file system allows it."""

    def __init__(self, path: epath.Path):
        super().__init__(path)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.sure = True
        except BlockingIOError:
            os.close(self._file)
            raise _refusal(path) from None
        except OSError:  # The file system has no locks.
            pass

    def take(self) -> None:
        os.pwrite(self._file, content := self.content(), 0)
        os.ftruncate(self._file, len(content))
        os.fsync(self._file)

    def own(self) -> bool:
        # Where the kernel watches over one host only, another may have written over it.
        return self.is_there() and super().own()

    def is_there(self) -> bool:
        try:
            return os.path.samestat(os.fstat(self._file), os.stat(self.path))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        os.close(self._file)


def _beat(lock: _Bucket, ended: threading.Event) -> None:
    while not ended.wait(BEAT_S):
        with contextlib.suppress(*storage.errors()):
            if lock.own():
                lock.take()


def _check(lock: _Bucket, workdir: epath.Path) -> None:
    with storage.writing(workdir):
        there = (workdir / "config.json").exists()
        own = lock.own() or not lock.path.exists()
    if not there:
        raise UserError(
            f"training stopped: {workdir} has been moved or deleted while it was written to: put "
            "it back, and the same command goes on from its last checkpoint"
        )
    if not own:
        raise UserError(f"training stopped: {_refusal(lock.path)}")


def _watch(path: epath.Path, before: dict[str, object]) -> None:
    """Returns once a lock has been silent for long enough; raises a `UserError` if it is not."""
    terminal.say(
        f"{_holder(before)} has begun a training in {path.parent}: looking for {WATCHED_S} s "
        "whether it still runs"
    )
    for _ in range(WATCHED_S):
        time.sleep(1)
        if (now := _read(path)) is None:
            return
        if now != before:
            raise _refusal(path)


def _refusal(path: epath.Path) -> UserError:
    return UserError(
        f"{path.parent} is in use: {_holder(_read(path) or {})} trains in it; wait until it ends, "
        "stop it, or use another --workdir"
    )


def _holder(lock: dict[str, object]) -> str:
    if not lock:
        return "another process"
    return "process {process} on {host}, since {since},".format(**lock)


def _is_foreign(path: epath.Path) -> bool:
    """Whether there is a file of this name that is no lock."""
    try:
        return bool(path.read_bytes()) and _read(path) is None
    except FileNotFoundError:
        return False


def _read(path: epath.Path) -> dict[str, object] | None:
    """Returns what a lock says; None if it is not there or nobody has written it yet."""
    try:
        found = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    complete = isinstance(found, dict) and found.keys() >= {"host", "process", "since"}
    return found if complete else None
