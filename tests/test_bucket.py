"""A workdir in a bucket: the same run as on a local disk, and a sentence for what goes wrong."""

import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
import pytest
from fake_bucket import FakeBucket
from PIL import Image
from test_metrics import _shown as shown

from pixel_rnn_jax import main, metrics, storage
from pixel_rnn_jax.metrics import CannotGoOn, MetricsWriter

pytest.importorskip("gcsfs")

ROOT = Path(__file__).resolve().parents[1]
RUN = "gs://bucket/runs/a"
STEPS = 20
SETTINGS = {
    "model.architecture": "pixel_cnn",
    "model.layers": 1,
    "model.features": 4,
    "model.head_features": 8,
    "optimizer.schedule": "constant",
    "train.log_every": 5,
    "train.eval_every": 10,
    "train.checkpoint_every": 5,
}
TRAIN = [
    *("train", f"--config={ROOT}/configs/digits.py"),
    *(f"--config.{name}={value}" for name, value in SETTINGS.items()),
]


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBucket]:
    """A bucket that this process and those that it starts take for Google's."""
    with FakeBucket() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        yield bucket
    assert not bucket.unknown


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What lets the programs of this file compile everything once, each for one device."""
    folder = str(tmp_path_factory.mktemp("compiled"))
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_NUM_CPU_DEVICES": "1",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(ROOT),
    }


class Program:
    """Starts `python -m pixel_rnn_jax.main` in a folder of its own."""

    def __init__(self, folder: Path, environment: dict[str, str]):
        self.folder = folder
        self.environment = environment
        self.process: subprocess.Popen[str] | None = None

    def __call__(self, *words: str, status: int = 0) -> str:
        """Runs it; returns what it prints, or for status 2 the one line of its error."""
        command = [sys.executable, "-m", "pixel_rnn_jax.main", *words]
        if words[0].endswith(".py"):
            command = [sys.executable, *words]
        with subprocess.Popen(
            command,
            cwd=self.folder,
            env=os.environ | self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as self.process:
            try:
                output, errors = self.process.communicate(timeout=100)
            finally:
                self.process.kill()
        assert self.process.returncode == status, output + errors
        # TensorStore's own line on the credentials that a test gives it.
        lines = [line for line in errors.splitlines() if "google_auth_provider.cc" not in line]
        if status != 2:
            assert not lines
            return output
        (line,) = lines
        assert line.startswith("error: ")
        return line


@pytest.fixture
def program(tmp_path: Path, cache: dict[str, str]) -> Program:
    folder = tmp_path / "here"
    folder.mkdir()
    return Program(folder, cache)


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory, cache: dict[str, str]) -> Path:
    """A run on a local disk that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    Program(folder, cache)(*TRAIN, f"--config.train.steps={STEPS}", f"--workdir={folder}/runs/a")
    return folder / "runs" / "a"


def fetched(bucket: FakeBucket, folder: Path) -> Path:
    """Copies the bucket into a folder; returns where the run is."""
    for name, stored in bucket.objects.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored.content)
    return folder / "runs" / "a"


def records(workdir: Path) -> list[dict[str, float]]:
    found = metrics.read_records(workdir)
    for record in found:
        record.pop("train/images_per_second", None)
    return found


def state(workdir: Path, step: int = STEPS) -> dict[str, bytes]:
    with ocp.PyTreeCheckpointer() as checkpointer, warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Sharding info not provided", UserWarning)
        arrays = checkpointer.restore(workdir / "checkpoints" / str(step) / "state")
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()}


def assert_same_run(workdir: Path, straight: Path) -> None:
    assert records(workdir) == records(straight)
    speed = "train/images_per_second"
    assert [entry for entry in shown(workdir) if entry[1] != speed] == [
        entry for entry in shown(straight) if entry[1] != speed
    ]
    for path in straight.glob("pictures/*.png"):
        with Image.open(path) as one, Image.open(workdir / "pictures" / path.name) as other:
            np.testing.assert_array_equal(np.asarray(one), np.asarray(other))
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"15", "20"}
    assert state(workdir) == state(straight)
    for name in ("config.json", "images.json"):
        assert (workdir / name).read_bytes() == (straight / name).read_bytes()
    assert not list(workdir.glob("*.unfinished"))


def test_a_run_that_was_stopped_ends_like_one_on_a_local_disk(
    bucket: FakeBucket, program: Program, straight: Path, tmp_path: Path
) -> None:
    def stop(method: str, name: str) -> None:
        if method == "POST" and name.endswith("metrics.jsonl"):  # Just before the checkpoint of 5.
            assert program.process
            program.process.send_signal(signal.SIGTERM)
            bucket.before = lambda method, name: None

    train = *TRAIN, f"--config.train.steps={STEPS}", f"--workdir={RUN}"
    bucket.before = stop
    assert "SIGTERM: stopped after step 6, which is saved" in program(*train, status=143)
    output = program(*train)
    assert "going on from step 6\n" in output
    assert f"samples: {RUN}/pictures/samples-20.png\n" in output
    assert_same_run(fetched(bucket, tmp_path), straight)
    assert not list(program.folder.iterdir())


@pytest.mark.slow
def test_what_is_trained_in_a_bucket_is_evaluated_and_sampled_from(
    bucket: FakeBucket, program: Program, straight: Path
) -> None:
    program(*TRAIN, f"--config.train.steps={STEPS}", f"--workdir={RUN}")
    before = dict(bucket.objects)
    for words in (["evaluate", "--split=validation"], ["sample", "--n=4"]):
        assert program(*words, f"--workdir={RUN}") == program(*words, f"--workdir={straight}")
    assert bucket.objects == before
    assert [path.name for path in program.folder.iterdir()] == ["samples.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    "write",
    ["state/ocdbt.process_0/d/", "digest/metadata", "state/commit_success", "10/commit_success"],
)
def test_killed_in_the_middle_of_a_save(
    bucket: FakeBucket, program: Program, straight: Path, tmp_path: Path, write: str
) -> None:
    def kill(method: str, name: str) -> None:
        if method == "POST" and "checkpoints/10/" in name and write in name:
            assert program.process
            program.process.kill()
            raise ConnectionError

    train = *TRAIN, f"--config.train.steps={STEPS}", f"--workdir={RUN}"
    bucket.before = kill
    program(*train, status=-signal.SIGKILL)
    bucket.before = lambda method, name: None
    left = dict(bucket.objects)
    assert any("checkpoints/10/" in name for name in left)
    assert program("evaluate", f"--workdir={RUN}").startswith("test, step 5: ")
    assert bucket.objects == left
    assert "going on from step 5\n" in program(*train)
    assert_same_run(fetched(bucket, tmp_path), straight)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_deletion(
    bucket: FakeBucket, program: Program, straight: Path, tmp_path: Path
) -> None:
    def kill(method: str, name: str) -> None:
        if method == "DELETE" and "checkpoints/5/" in name:
            deleted.append(name)
        if len(deleted) == 9:
            assert program.process
            program.process.kill()
            raise ConnectionError

    train = *TRAIN, f"--config.train.steps={STEPS}", f"--workdir={RUN}"
    deleted: list[str] = []
    bucket.before = kill
    program(*train, status=-signal.SIGKILL)
    assert any("checkpoints/5/" in name for name in bucket.objects)
    bucket.before = lambda method, name: None
    assert "going on from step 1" in program(*train)
    assert_same_run(fetched(bucket, tmp_path), straight)


@pytest.mark.slow
def test_two_processes(
    bucket: FakeBucket, program: Program, straight: Path, tmp_path: Path
) -> None:
    launcher = f"{ROOT}/launch/processes.py", sys.executable, "2"
    for steps in (10, STEPS):
        output = program(*launcher, *TRAIN, f"--config.train.steps={steps}", f"--workdir={RUN}")
    assert "going on from step 10\n" in output
    workdir = fetched(bucket, tmp_path)
    for record, expected in zip(records(workdir), records(straight), strict=True):
        assert record == pytest.approx(expected, rel=1e-4)
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"15", "20"}
    for words in (["evaluate"], [*launcher, "evaluate"]):
        assert "\ntest, step 20: " in "\n" + program(*words, f"--workdir={RUN}")


# ---- What goes wrong ----------------------------------------------------------------------------


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets `main` run here, where JAX has its devices already."""
    monkeypatch.setattr("pixel_rnn_jax.parallel.set_up_host_devices", lambda: None)


def evaluate(capfd: pytest.CaptureFixture[str], workdir: str = RUN) -> str:
    """Evaluates what cannot be evaluated, in this process; returns the one line that is printed."""
    assert main.main(["evaluate", f"--workdir={workdir}"]) == 2
    output, errors = capfd.readouterr()
    (line,) = errors.splitlines()
    assert not output and line.startswith("error: ")
    return line


@pytest.mark.usefixtures("in_process")
def test_a_workdir_that_cannot_be_used(
    bucket: FakeBucket, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "error: there is no bucket gs://other: create it, or choose another --workdir"
    assert evaluate(capfd, "gs://other/runs/a") == said
    for workdir in ("s3://bucket/a", "gcs://bucket/a", "gs:///a"):
        assert f"{workdir} is neither a folder nor in a bucket (gs://" in evaluate(capfd, workdir)
    assert "gs://bucket/runs/a holds no training run: there is no config.json" in evaluate(capfd)
    bucket.objects_only = True
    assert "gs://bucket may not be used (no storage.buckets.get): give yourself" in evaluate(capfd)
    bucket.refusal = 403
    assert "gs://bucket may not be used (It does not have the right to do" in evaluate(capfd)
    monkeypatch.setattr(storage, "START_S", 0.2)
    bucket.refusal = 503
    assert "gs://bucket cannot be reached (Timeout of 0.2s exceeded" in evaluate(capfd)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    assert "gs://bucket cannot be reached (Connection refused): look at" in evaluate(capfd)


@pytest.mark.usefixtures("in_process")
def test_training_neither_makes_a_bucket_nor_works_without_one(
    bucket: FakeBucket, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pixel_rnn_jax.data.source_of", None)  # Nothing has been done before.
    assert main.main([*TRAIN, "--workdir=gs://other/runs/a"]) == 2
    assert "error: there is no bucket gs://other" in capfd.readouterr().err
    assert not bucket.objects


@pytest.mark.usefixtures("in_process")
def test_without_gcsfs(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert evaluate(capfd).endswith(
        f"{RUN} needs packages that are not installed: pip install 'pixel-rnn-jax[gcs]'"
    )


@pytest.mark.slow
def test_tensorflow_is_not_asked(bucket: FakeBucket, program: Program, tmp_path: Path) -> None:
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise ImportError('it was asked')")
    program.environment = program.environment | {"PYTHONPATH": f"{ROOT}:{tmp_path}"}
    line = program("evaluate", f"--workdir={RUN}", status=2)
    assert f"{RUN} holds no training run" in line


# aiohttp's advice to gcsfs on large bodies.
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
def test_records_grow_in_a_bucket(bucket: FakeBucket, tmp_path: Path) -> None:
    """To more than gcsfs sends in one piece."""
    noise = np.random.default_rng(0).integers(256, size=(1400, 1400, 3), dtype=np.uint8)
    for start in (0, 2):
        with MetricsWriter(RUN, start) as writer:
            for step in range(start + 1, start + 4):  # Step 3 is written twice.
                writer.write(step, {"train/nats": step / 4})
            if not start:
                writer.write_picture(2, "samples", noise)
            writer.flush()
    assert len(metrics.read_records(RUN)) == 5
    workdir = fetched(bucket, tmp_path)
    assert [record["step"] for record in metrics.read_records(workdir)] == [1, 2, 3, 4, 5]
    assert [(step, tag) for step, tag, _ in shown(workdir)] == [
        *((1, "train/nats"), (2, "train/nats"), (2, "samples")),
        *((step, "train/nats") for step in (3, 4, 5)),
    ]
    assert max(len(stored.content) for stored in bucket.objects.values()) > 5 * 2**20


@pytest.mark.parametrize("status", [400, 403])  # Of which gcsfs makes different errors.
def test_records_that_cannot_be_written(bucket: FakeBucket, status: int) -> None:
    with MetricsWriter(RUN, 0) as writer:
        writer.write(1, {"train/nats": 1.0})
        bucket.refusal = status
        with pytest.raises(CannotGoOn, match=f"^{RUN} cannot be written to: It does not have the"):
            writer.flush()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("config.json", "gs://bucket/runs/a cannot be written to: "),
        ("metrics.jsonl", "training stopped at gs://bucket/runs/a cannot be written to: "),
        *(
            (f"checkpoints/10/{name}", "A checkpoint could not be written to gs://bucket/runs/a/ch")
            for name in ("", "state/ocdbt.process_0/d/", "digest/metadata")
        ),
    ],
)
def test_the_right_to_write_is_lost(
    bucket: FakeBucket, program: Program, straight: Path, tmp_path: Path, write: str, said: str
) -> None:
    def refuse(method: str, name: str) -> None:
        if method == "POST" and write in name:
            bucket.refusal = 403
            raise ConnectionError

    train = *TRAIN, f"--config.train.steps={STEPS}", f"--workdir={RUN}"
    bucket.before = refuse
    assert said in program(*train, status=2)
    bucket.before = lambda method, name: None
    bucket.refusal = None
    program(*train)
    assert_same_run(fetched(bucket, tmp_path), straight)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("read", "said"),
    [
        ("config.json", f"{RUN}/config.json cannot be read: It does not have the right"),
        ("images.json", f"{RUN}/images.json cannot be read: It does not have the right"),
        ("digest/metadata", f"Checkpoint {RUN}/checkpoints/5 cannot be read (It does not have"),
        ("state/d/", f"Checkpoint {RUN}/checkpoints/5 cannot be read (PERMISSION_DENIED: "),
    ],
)
def test_what_may_not_be_read_is_not_called_damaged(
    bucket: FakeBucket, program: Program, read: str, said: str
) -> None:
    def refuse(method: str, name: str) -> None:
        if method == "GET" and read in name:
            bucket.refusal = 403
            raise ConnectionError

    program(*TRAIN, "--config.train.steps=5", f"--workdir={RUN}")
    bucket.before = refuse
    line = program("evaluate", f"--workdir={RUN}", status=2)
    assert said in line and "delete" not in line
    assert len(line) < 400


@pytest.mark.slow
def test_a_damaged_checkpoint(bucket: FakeBucket, program: Program) -> None:
    program(*TRAIN, "--config.train.steps=5", f"--workdir={RUN}")
    for name in [name for name in bucket.objects if "checkpoints/5/state/d/" in name]:
        content = bytearray(bucket.objects[name].content)
        content[len(content) // 2] ^= 16
        bucket.write(name, bytes(content))
    line = program("evaluate", f"--workdir={RUN}", status=2)
    assert f"Checkpoint {RUN}/checkpoints/5 is damaged or incomplete" in line
