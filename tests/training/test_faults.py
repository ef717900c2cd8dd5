"""The program as a user runs it, killed, stopped and starved: nothing is lost."""

import contextlib
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import programs
import pytest
from workdirs import differences, records_of, saved_steps

pytestmark = pytest.mark.slow

STEPS, KILLS = 400, 20
SETTINGS = {
    "model__head_features": 4,
    "train__steps": STEPS,
    "train__log_every": 7,
    "train__eval_every": 60,
    "train__checkpoint_every": 9,
}


def command(workdir: Path, **settings: object) -> list[str]:
    return [*programs.MAIN, *programs.train_words(workdir, **SETTINGS | settings)]


@contextlib.contextmanager
def running(words: list[str], until: Callable[[], bool]) -> Iterator[subprocess.Popen[str]]:
    """Starts a program, waits for a condition, and kills the program in the end."""
    # Whoever runs the tests in the background has a Ctrl-C that is ignored, by all children too.
    words, environment = ["env", "--default-signal=INT", *words], programs.environment()
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 120
            while not until():
                assert process.poll() is None, "it ended too early"
                assert time.monotonic() < deadline
                time.sleep(0.001)
            yield process
        finally:
            process.kill()


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("straight")
    programs.run(*command(workdir))
    return workdir


def test_killed_at_any_moment(straight, tmp_path, rng):
    """Ten times soon after a checkpoint, and ten times at any other moment from the start on."""

    def grown() -> bool:
        return max(saved_steps(tmp_path), default=0) > newest

    for kill in range(KILLS):
        newest = max(saved_steps(tmp_path), default=0)
        soon = kill % 2 == 0 and newest < STEPS / 2
        with running(command(tmp_path), grown if soon else lambda: True):
            time.sleep(rng.uniform(0, 0.1 if soon else 6))
    programs.run(*command(tmp_path))
    assert differences(tmp_path, straight) == set()


def test_ctrl_c_saves_and_exits(straight, tmp_path):
    def recorded() -> bool:  # Beyond the first validation of the other run.
        path = tmp_path / "metrics.jsonl"
        return path.exists() and path.read_bytes().count(b"\n") > 60 / 7

    # Without a regular checkpoint there is only the one that the signal has asked for.
    words = command(tmp_path, train__checkpoint_every=1000, train__eval_every=1000)
    with running(words, recorded) as process:
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    (step,) = saved_steps(tmp_path)
    assert f"SIGINT: stopped after step {step}, which is saved" in output
    programs.run(*command(tmp_path))
    # Without the first validations, and perhaps with another best checkpoint.
    assert differences(tmp_path, straight) - {"steps"} == {"records", "pictures"}
    steps = [
        [record["step"] for record in records_of(workdir) if "train/nats" in record]
        for workdir in (tmp_path, straight)
    ]
    assert steps[0] == steps[1]


def mounting(script: str, *words: str) -> list[str]:
    """Returns a command that runs words after a mount, in a name space of its own."""
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*prefix, script], check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    return [*prefix, f'{script} && {{ "$@"; }}', "sh", *words]


@pytest.mark.parametrize("kilobytes", [4, 20, 300, 600])
def test_full_disk(straight, tmp_path, kilobytes):
    """A file system of this size; what it holds is copied out."""
    small, out = tmp_path / "small", tmp_path / "out"
    small.mkdir()
    out.mkdir()
    copying = ["sh", "-c", f'"$@"; code=$?; cp -r {small}/. {out}; exit $code', "sh"]
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {small}"
    error = programs.run(*mounting(mount, *copying, *command(small)), status=2).stderr
    assert error.startswith("error: ") and error.count("\n") == 1
    assert not (kept := saved_steps(out)) or str(max(kept)) in error
    programs.run(*command(out))
    assert differences(out, straight) == set()


def test_read_only(straight):
    """What only reads does so; training, and a new run, are refused before any work."""
    mount = f"mount --bind {straight} {straight} && mount -o remount,ro,bind {straight}"
    evaluate = [*programs.MAIN, "evaluate", f"--workdir={straight}"]
    expected = programs.run(*evaluate).stdout
    assert programs.run(*mounting(mount, *evaluate)).stdout == expected
    for workdir in (straight, straight / "new"):
        error = programs.run(*mounting(mount, *command(workdir)), status=2).stderr
        assert error == f"error: {workdir} cannot be written to: Read-only file system\n"
