"""One training at a time: who is refused, and what a killed run leaves behind."""

import errno
import fcntl
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import programs
import pytest
from etils import epath
from fake_bucket import FakeBucket

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs import lock
from pixel_rnn_jax.runtime import processes

HOLD = """
import sys, time
from etils import epath
from pixel_rnn_jax.runs import lock
with lock.hold(epath.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(100)
"""
IN_USE = (
    rf"is in use: process {os.getpid()} on {re.escape(socket.gethostname())}, since "
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}, trains in it; wait until it ends, stop it, or use "
)


@pytest.fixture
def workdir(tmp_path):
    return epath.Path(tmp_path / "run")


@pytest.fixture
def without_locks(monkeypatch):
    """A file system that has no locks."""

    def flock(*_):
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(fcntl, "flock", flock)


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(lock, "BEAT_S", 0.1)
    monkeypatch.setattr(lock, "WATCHED_S", 3)


def leave(workdir, host="elsewhere"):
    """Leaves the lock of a process that has ended."""
    workdir.mkdir()
    holder = {"host": host, "process": 7, "since": "2026-01-01 10:00:00 +0000", "beat": 1}
    (workdir / "lock").write_text(json.dumps(holder))


def test_a_second_training_is_refused(workdir):
    with lock.hold(workdir):
        before = (workdir / "lock").read_bytes()
        for _ in range(2):
            with pytest.raises(UserError, match=f"^{workdir} {IN_USE}"), lock.hold(workdir):
                pytest.fail("held twice")
        assert (workdir / "lock").read_bytes() == before
    assert list(workdir.iterdir()) == []
    with lock.hold(workdir):
        pass


def test_a_killed_process_does_not_block(workdir):
    words = [sys.executable, "-c", HOLD, str(workdir)]
    with subprocess.Popen(
        words, env=programs.environment(), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.readline() == "held\n"
        said = f"in use: process {process.pid} on "
        with pytest.raises(UserError, match=said), lock.hold(workdir):
            pytest.fail("held twice")
        process.kill()
    assert json.loads((workdir / "lock").read_text())["process"] == process.pid
    start = time.monotonic()
    with lock.hold(workdir):
        assert time.monotonic() - start < 1
        assert json.loads((workdir / "lock").read_text())["process"] == os.getpid()


def test_a_silent_lock_from_elsewhere_is_taken_over(workdir, quick, capsys):
    leave(workdir)
    with lock.hold(workdir):
        assert json.loads((workdir / "lock").read_text())["process"] == os.getpid()
    assert "process 7 on elsewhere, since 2026-01-01 10:00:00 +0000, has" in capsys.readouterr().out


def test_a_lock_that_is_deleted_while_it_is_watched_is_taken_anew(workdir, monkeypatch):
    leave(workdir)
    monkeypatch.setattr(lock, "_watch", lambda path, before: path.unlink())
    with lock.hold(workdir) as check:
        (workdir / "config.json").write_text("{}")
        assert json.loads((workdir / "lock").read_text())["process"] == os.getpid()
        check()
        with pytest.raises(UserError, match=IN_USE), lock.hold(workdir):
            pytest.fail("held twice")


def test_a_lock_that_beats_is_refused(workdir, quick, without_locks, capsys):
    with lock.hold(workdir), pytest.raises(UserError, match=IN_USE), lock.hold(workdir):
        pytest.fail("held twice")
    leave(epath.Path(workdir.parent / "left"), socket.gethostname())
    with lock.hold(workdir.parent / "left"):
        pass
    assert capsys.readouterr().out.count("looking for 3 s whether it still runs") == 2


def test_a_bucket(monkeypatch, quick):
    pytest.importorskip("gcsfs")
    with FakeBucket() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        workdir = epath.Path("gs://bucket/run")
        with lock.hold(workdir) as check:
            (workdir / "config.json").write_text("{}")
            check()
            with pytest.raises(UserError, match=IN_USE), lock.hold(workdir):
                pytest.fail("held twice")
            check()
        assert bucket.objects.keys() == {"run/config.json"}


def test_other_processes_of_a_run_take_no_lock(workdir, monkeypatch):
    with lock.hold(workdir):
        monkeypatch.setattr(processes, "first", lambda: False)
        with lock.hold(workdir) as check:
            check()
        monkeypatch.undo()
        assert (workdir / "lock").exists()


def test_a_lock_that_another_host_has_taken_over_is_noticed(workdir):
    with lock.hold(workdir) as check:
        (workdir / "config.json").write_text("{}")
        other = {"host": "elsewhere", "process": 7, "since": "2026-01-01 10:00:00 +0000"}
        (workdir / "lock").write_text(json.dumps(other))
        with pytest.raises(UserError, match="is in use: process 7 on elsewhere"):
            check()
    assert json.loads((workdir / "lock").read_text()) == other


def test_a_workdir_that_has_gone_or_is_anothers(workdir):
    with lock.hold(workdir) as check:
        (workdir / "config.json").write_text("{}")
        check()
        shutil.rmtree(workdir)
        with pytest.raises(UserError, match=f"stopped: {workdir} has been moved or deleted"):
            check()
        with lock.hold(workdir):
            (workdir / "config.json").write_text("{}")
            with pytest.raises(UserError, match=f"stopped: {workdir} {IN_USE}"):
                check()
    assert [path.name for path in workdir.iterdir()] == ["config.json"]
