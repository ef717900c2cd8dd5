"""The program as a user runs it, killed, stopped, starved and damaged: nothing is lost."""

import contextlib
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest

from pixel_rnn_jax.metrics import read_records

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[1]
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


def _command(workdir: Path, **settings: object) -> list[str]:
    values = SETTINGS | {name.replace("__", "."): value for name, value in settings.items()}
    return [
        *(sys.executable, "-m", "pixel_rnn_jax.main"),
        *(f"--config={ROOT}/configs/digits.py", f"--workdir={workdir}"),
        *(f"--config.{name}={value}" for name, value in values.items()),
    ]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=300
    )


@contextlib.contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    # Whoever runs the tests in the background has a Ctrl-C that is ignored, by all children too.
    command = ["env", "--default-signal=INT", *command]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _wait_until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "it ended too early"
        assert time.monotonic() < deadline
        time.sleep(0.001)


def _saved(workdir: Path) -> set[int]:
    folder = workdir / "checkpoints"
    return {int(p.name) for p in folder.iterdir() if p.name.isdigit()} if folder.exists() else set()


def _outcome(workdir: Path) -> tuple[list[dict[str, float]], set[int], dict[str, bytes]]:
    """Everything that a run leaves, but for its speed: records, steps that are kept, last state."""
    records = read_records(workdir)
    for record in records:
        record.pop("train/images_per_second", None)
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided", UserWarning)
        state = checkpointer.restore(workdir / "checkpoints" / str(STEPS) / "state")
    return records, _saved(workdir), {name: np.asarray(x).tobytes() for name, x in state.items()}


def _error(result: subprocess.CompletedProcess[str]) -> str:
    """The one sentence that a user gets."""
    assert result.returncode == 2, result.stderr
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workdir = tmp_path_factory.mktemp("straight")
    result = _run(_command(workdir))
    assert result.returncode == 0, result.stderr
    return workdir


@pytest.mark.parametrize("seed", range(2))
def test_sigkill_at_any_moment(straight: Path, tmp_path: Path, seed: int) -> None:
    def grown() -> bool:
        return max(_saved(tmp_path), default=0) > newest

    rng = random.Random(seed)
    for _ in range(4):
        newest = max(_saved(tmp_path), default=0)
        with _running(_command(tmp_path)) as process:
            _wait_until(grown, process)
            time.sleep(rng.uniform(0, 0.1))
    assert 0 < max(_saved(tmp_path)) < STEPS
    assert _run(_command(tmp_path)).returncode == 0
    assert _outcome(tmp_path) == _outcome(straight)


def test_sigkill_in_the_middle_of_a_save(straight: Path, tmp_path: Path) -> None:
    def saving() -> bool:
        folder = tmp_path / "checkpoints"
        return bool(_saved(tmp_path)) and any("tmp" in path.name for path in folder.iterdir())

    for _ in range(2):
        with _running(_command(tmp_path)) as process:
            _wait_until(saving, process)
    assert _run(_command(tmp_path)).returncode == 0
    assert _outcome(tmp_path) == _outcome(straight)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_exits(straight: Path, tmp_path: Path, number: signal.Signals) -> None:
    def recorded() -> bool:
        path = tmp_path / "metrics.jsonl"
        return path.exists() and path.stat().st_size > 0

    # Without a regular checkpoint there is only the one that the signal has asked for.
    settings = {"train__checkpoint_every": 1000, "train__eval_every": 1000}
    with _running(_command(tmp_path, **settings)) as process:
        _wait_until(recorded, process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    (step,) = _saved(tmp_path)
    assert f"{number.name}: stopped after step {step}, which is saved" in output
    assert _run(_command(tmp_path)).returncode == 0
    records, _, state = _outcome(tmp_path)
    expected, _, expected_state = _outcome(straight)
    assert state == expected_state
    trained = [record for record in records if "train/nats" in record]
    assert [r["step"] for r in trained] == [r["step"] for r in expected if "train/nats" in r]


def test_divergence(tmp_path: Path) -> None:
    message = _error(_run(_command(tmp_path, optimizer__learning_rate=1e30)))
    assert "training stopped at step" in message
    assert "nothing was saved" in message


def test_other_config(straight: Path) -> None:
    before = _outcome(straight)
    message = _error(_run(_command(straight, model__features=5)))
    assert "model.features from 4 to 5" in message
    assert _outcome(straight) == before


def test_flipped_byte(straight: Path, tmp_path: Path) -> None:
    workdir = tmp_path / "damaged"
    shutil.copytree(straight, workdir)
    # Orbax keeps the arrays twice and reads one copy.
    for path in (workdir / "checkpoints" / str(STEPS) / "state").rglob("d/*"):
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 16
        path.write_bytes(content)
    for command in (
        _command(workdir),
        [sys.executable, "-m", "pixel_rnn_jax.main", "evaluate", f"--workdir={workdir}"],
    ):
        assert f"{workdir}/checkpoints/{STEPS} is damaged" in _error(_run(command))
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    assert _run(_command(workdir)).returncode == 0
    assert _outcome(workdir) == _outcome(straight)


@pytest.mark.parametrize("kilobytes", [4, 20, 300, 600])
def test_full_disk(straight: Path, tmp_path: Path, kilobytes: int) -> None:
    """A file system of this size, in a name space of our own; what it holds is copied out."""
    small, out = tmp_path / "small", tmp_path / "out"
    small.mkdir()
    out.mkdir()
    mount = f"mount -t tmpfs -o size={kilobytes}k tmpfs {small}"
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if not shutil.which("unshare") or _run([*prefix, mount]).returncode:
        pytest.skip("needs the right to mount a file system")
    script = f'{mount} && "$@"; code=$?; cp -r {small}/. {out}; exit $code'
    message = _error(_run([*prefix, script, "sh", *_command(small)]))
    kept = _saved(out)
    if kept:
        assert str(max(kept)) in message
    assert _run(_command(out)).returncode == 0
    assert _outcome(out) == _outcome(straight)
