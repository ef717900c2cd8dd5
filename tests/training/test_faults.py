"""The program as a user runs it, killed, stopped, starved and damaged: nothing is lost."""

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from workdirs import differences, outcome, records_of, saved_steps

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
STEPS = 400
SETTINGS = {
    "model.layers": 1,
    "model.features": 4,
    "model.head_features": 4,
    "train.steps": STEPS,
    "train.batch_size": 8,
    "train.log_every": 7,
    "train.eval_every": 60,
    "train.checkpoint_every": 9,
}


def command(workdir: Path, **settings: object) -> list[str]:
    values = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    return [
        *(sys.executable, "-m", "pixel_rnn_jax.main"),
        *(f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}"),
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def run(words: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300)


def error_of(words: list[str]) -> str:
    """Returns the one sentence that a user gets."""
    result = run(words)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("error: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


@contextlib.contextmanager
def running(words: list[str], until: Callable[[], bool]) -> Iterator[subprocess.Popen[str]]:
    """Starts a program, waits for a condition, and kills the program in the end."""
    # Whoever runs the tests in the background has a Ctrl-C that is ignored, by all children too.
    words = ["env", "--default-signal=INT", *words]
    with subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
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
    result = run(command(workdir))
    assert result.returncode == 0, result.stderr
    return workdir


def check_goes_on(workdir: Path, straight: Path) -> None:
    """The same command ends as a run that nothing disturbed."""
    result = run(command(workdir))
    assert result.returncode == 0, result.stderr
    assert differences(workdir, straight) == set()


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment(straight, tmp_path, seed):
    def grown() -> bool:
        return max(saved_steps(tmp_path), default=0) > newest

    rng = random.Random(seed)
    for _ in range(4):
        newest = max(saved_steps(tmp_path), default=0)
        with running(command(tmp_path), grown):
            time.sleep(rng.uniform(0, 0.1))
    assert 0 < max(saved_steps(tmp_path)) < STEPS
    check_goes_on(tmp_path, straight)


def test_killed_while_saving(straight, tmp_path):
    def saving() -> bool:
        folder = tmp_path / "checkpoints"
        return bool(saved_steps(tmp_path)) and any("tmp" in path.name for path in folder.iterdir())

    for _ in range(2):
        with running(command(tmp_path), saving):
            pass
    check_goes_on(tmp_path, straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_exits(straight, tmp_path, number):
    def recorded() -> bool:
        path = tmp_path / "metrics.jsonl"
        return path.exists() and path.stat().st_size > 0

    # Without a regular checkpoint there is only the one that the signal has asked for.
    words = command(tmp_path, train__checkpoint_every=1000, train__eval_every=1000)
    with running(words, recorded) as process:
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    (step,) = saved_steps(tmp_path)
    assert f"{number.name}: stopped after step {step}, which is saved" in output
    assert run(command(tmp_path)).returncode == 0
    # Without validations, there are fewer records, pictures and checkpoints.
    assert differences(tmp_path, straight) == {"records", "pictures", "steps"}
    steps = [
        [record["step"] for record in records_of(workdir) if "train/nats" in record]
        for workdir in (tmp_path, straight)
    ]
    assert steps[0] == steps[1]


def test_divergence(tmp_path):
    message = error_of(command(tmp_path, optimizer__learning_rate=1e30))
    assert "training stopped: step" in message
    assert "nothing was saved" in message


def test_other_config(straight):
    before = outcome(straight)
    assert "model.features from 4 to 5" in error_of(command(straight, model__features=5))
    assert outcome(straight) == before


def test_flipped_byte(straight, tmp_path):
    workdir = tmp_path / "damaged"
    shutil.copytree(straight, workdir)
    # Orbax keeps the arrays twice and reads one copy.
    for path in (workdir / "checkpoints" / str(STEPS) / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
    evaluate = [sys.executable, "-m", "pixel_rnn_jax.main", "evaluate", f"--workdir={workdir}"]
    for words in (command(workdir), evaluate):
        assert f"{workdir}/checkpoints/{STEPS} is damaged" in error_of(words)
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    check_goes_on(workdir, straight)


@pytest.mark.parametrize("kilobytes", [4, 20, 300, 600])
def test_full_disk(straight, tmp_path, kilobytes):
    """A file system of this size, in a name space of our own; what it holds is copied out."""
    small, out = tmp_path / "small", tmp_path / "out"
    small.mkdir()
    out.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {small}"
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or run([*prefix, mount]).returncode:
        pytest.skip("needs the right to mount a file system")
    script = f'{mount} && "$@"; code=$?; cp -r {small}/. {out}; exit $code'
    message = error_of([*prefix, script, "sh", *command(small)])
    kept = saved_steps(out)
    if kept:
        assert str(max(kept)) in message
    check_goes_on(out, straight)
