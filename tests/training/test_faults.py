"""The program as a user runs it, killed, stopped and starved: nothing is lost."""

import os
import random
import secrets
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from helpers import programs
from helpers.workdirs import differences, saved_steps

pytestmark = pytest.mark.slow

STEPS, KILLS = 400, 6
SETTINGS = {
    "model__head_features": 4,
    "model__scales": "(4,8)",
    "train__steps": STEPS,
    "train__log_every": 7,
    "train__eval_every": 60,
    "train__checkpoint_every": 9,
}


def command(workdir: Path) -> list[str]:
    return [*programs.MAIN, *programs.train_words(workdir, **SETTINGS)]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """The workdir of a run that was never stopped."""
    workdir = tmp_path_factory.mktemp("straight")
    programs.run(*command(workdir))
    return workdir


def test_killed_at_any_moment(straight, tmp_path):
    """Half of the times soon after a checkpoint, half at any other moment from the start on.

    By FAULTS_SEED, or a new seed each time; a test that fails shows it.
    """
    seed = int(os.environ.get("FAULTS_SEED") or secrets.randbelow(2**32))
    print(f"FAULTS_SEED={seed}")
    rng = random.Random(seed)
    words = command(tmp_path)
    for kill in range(KILLS):
        newest = max(saved_steps(tmp_path), default=0)
        soon = kill % 2 == 0 and newest < STEPS / 2
        environment = programs.environment()
        with subprocess.Popen(words, env=environment, stderr=subprocess.DEVNULL) as process:
            while soon and max(saved_steps(tmp_path), default=0) <= newest:
                assert process.poll() is None, "it ended too early"
                time.sleep(0.001)
            time.sleep(rng.uniform(0, 0.1 if soon else 6))
            process.kill()
    programs.run(*words)
    assert differences(tmp_path, straight) == set()


@pytest.mark.parametrize("kilobytes", [4, 300])
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
    assert differences(out, straight) == set()
