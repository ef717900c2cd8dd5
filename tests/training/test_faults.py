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
KINDS: dict[str, dict[str, object]] = {
    "one scale": {"optimizer__ema_decay": 0},
    "average": {},
    "several scales": {"model__scales": "(4,8)"},
}


def command(workdir: Path, **settings: object) -> list[str]:
    return [*programs.MAIN, *programs.train_words(workdir, **SETTINGS | settings)]


@contextlib.contextmanager
def running(words: list[str], until: Callable[[], bool]) -> Iterator[subprocess.Popen[str]]:
    """Starts a program, waits for a condition, and kills the program in the end."""
    # Whoever runs the tests in the background has a Ctrl-C that is ignored, by all children too.
    words, environment = ["env", "--default-signal=INT", *words], programs.environment()
    with subprocess.Popen(words, env=environment, stderr=subprocess.PIPE, text=True) as process:
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
    """Returns the workdir of a run of a kind that was never stopped."""
    workdirs: dict[str, Path] = {}

    def of_kind(kind: str) -> Path:
        if kind not in workdirs:
            workdirs[kind] = tmp_path_factory.mktemp("straight")
            programs.run(*command(workdirs[kind], **KINDS[kind]))
        return workdirs[kind]

    return of_kind


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_moment(straight, tmp_path, rng, kind):
    """Half of the times soon after a checkpoint, half at any other moment from the start on."""
    words = command(tmp_path, **KINDS[kind])

    def grown() -> bool:
        return max(saved_steps(tmp_path), default=0) > newest

    for kill in range(KILLS):
        newest = max(saved_steps(tmp_path), default=0)
        soon = kill % 2 == 0 and newest < STEPS / 2
        with running(words, grown if soon else lambda: True):
            time.sleep(rng.uniform(0, 0.1 if soon else 6))
    programs.run(*words)
    assert differences(tmp_path, straight(kind)) == set()


def test_ctrl_c_saves_and_exits(straight, tmp_path):
    def recorded() -> bool:  # Beyond the first validation of the other run.
        path = tmp_path / "metrics.jsonl"
        return path.exists() and path.read_bytes().count(b"\n") > 60 / 7

    # Without a regular checkpoint there is only the one that the signal has asked for.
    words = command(tmp_path, train__checkpoint_every=1000, train__eval_every=1000)
    with running(words, recorded) as process:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert len(saved_steps(tmp_path)) == 1
    programs.run(*command(tmp_path))
    # Without the first validations, and perhaps with another best checkpoint.
    assert differences(tmp_path, straight("average")) - {"steps"} == {"records", "pictures"}
    steps = [
        [record["step"] for record in records_of(workdir) if "train/nats" in record]
        for workdir in (tmp_path, straight("average"))
    ]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("kilobytes", [4, 20, 300, 600])
def test_full_disk(straight, tmp_path, kilobytes):
    """A file system of this size; what it holds is copied out, and the run is resumed."""
    small, out = tmp_path / "small", tmp_path / "out"
    small.mkdir()
    out.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {small}"
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or subprocess.run([*prefix, mount], check=False).returncode:
        pytest.skip("needs the right to mount a file system")
    script = f'{mount} && {{ timeout 100 "$@"; code=$?; cp -r {small}/. {out}; exit $code; }}'
    words = [*prefix, script, "sh", *command(small)]
    status = subprocess.run(words, env=programs.environment(), cwd=programs.ROOT).returncode
    assert status in (1, 2)
    programs.run(*command(out))
    assert differences(out, straight("average")) == set()
