"""A workdir in a bucket: the same run as on a local disk, and a sentence for what goes wrong."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import programs
import pytest
from fake_bucket import FakeBucket
from programs import LAUNCHER, MAIN, train_words
from tensorboard_files import shown
from workdirs import differences, records_of

from pixel_rnn_jax import main
from pixel_rnn_jax.runs.records import CannotGoOn, MetricsWriter, read_records
from pixel_rnn_jax.runtime import devices, storage

pytest.importorskip("gcsfs")

RUN = "gs://bucket/runs/a"
EVALUATE = "evaluate", f"--workdir={RUN}"
STEPS = 20


def train(workdir=RUN, steps=STEPS):
    return train_words(workdir, train__steps=steps, train__eval_every=10, train__checkpoint_every=5)


class Program:
    """Starts the program in a folder of its own; `process` is what has been started last."""

    def __init__(self, folder, environment):
        folder.mkdir()
        self.folder, self.environment = folder, environment

    def __call__(self, *words, status=0, prefix=MAIN):
        """Runs it; returns what it prints, or for status 2 the one line of its error."""
        options = dict(cwd=self.folder, env=programs.environment(self.environment), text=True)
        pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with subprocess.Popen([*prefix, *words], **options, **pipes) as self.process:
            try:
                output, errors = self.process.communicate(timeout=100)
            finally:
                self.process.kill()
        assert self.process.returncode == status, output + errors
        # TensorStore's own line on the credentials that a test gives it.
        lines = [line for line in errors.splitlines() if "google_auth_provider.cc" not in line]
        assert len(lines) == (status == 2) and all(line.startswith("error: ") for line in lines)
        return lines[0] if lines else output


@pytest.fixture
def bucket(monkeypatch):
    """A bucket that this process and those that it starts take for Google's."""
    with FakeBucket() as bucket:
        for name, value in bucket.environment.items():
            monkeypatch.setenv(name, value)
        yield bucket
    assert not bucket.unknown


@pytest.fixture
def program(tmp_path, compilation_cache):
    return Program(tmp_path / "here", compilation_cache)


@pytest.fixture(scope="module")
def straight(tmp_path_factory, compilation_cache):
    """A run on a local disk that was never stopped."""
    folder = tmp_path_factory.mktemp("straight")
    Program(folder / "here", compilation_cache)(*train(folder / "runs" / "a"))
    return folder / "runs" / "a"


@pytest.fixture
def fetch(bucket, tmp_path):
    """Copies the bucket into a folder; returns where the run is."""

    def copy():
        for name, stored in bucket.objects.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(stored.content)
        return tmp_path / "runs" / "a"

    return copy


def assert_same_run(workdir, straight):
    assert differences(workdir, straight) == set()
    one, other = (
        [entry for entry in shown(folder) if entry[1] != "train/images_per_second"]
        for folder in (workdir, straight)
    )
    assert one == other
    assert {path.name for path in (workdir / "checkpoints").iterdir()} == {"15", "20"}
    for name in ("config.json", "images.json"):
        assert (workdir / name).read_bytes() == (straight / name).read_bytes()
    assert not list(workdir.glob("*.unfinished"))


LOOK = """
import sys
from etils import epath
from pixel_rnn_jax.runs.workdir import newest_step
from pixel_rnn_jax.runtime import storage
storage.check(sys.argv[1])
for _ in sys.stdin:
    print(newest_step(epath.Path(sys.argv[1])), flush=True)
"""


def test_a_reader_sees_what_is_written_after_its_first_look(bucket, compilation_cache):
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    environment = programs.environment(compilation_cache)
    with subprocess.Popen([sys.executable, "-c", LOOK, RUN], env=environment, **pipes) as reader:
        try:
            for step in (5, 10):
                bucket.write(f"runs/a/checkpoints/{step}/commit_success.txt", b"")
                reader.stdin.write("\n")
                reader.stdin.flush()
                assert reader.stdout.readline() == f"{step}\n"
        finally:
            reader.kill()


def test_a_run_that_was_stopped_ends_like_one_on_a_local_disk(bucket, program, straight, fetch):
    def stop(method, name):
        if method == "POST" and name.endswith("metrics.jsonl"):  # Just before the checkpoint of 5.
            program.process.send_signal(signal.SIGTERM)
            bucket.before = None

    bucket.before = stop
    assert "SIGTERM: stopped after step 6, which is saved" in program(*train(), status=143)
    output = program(*train())
    assert "going on from step 6\n" in output
    assert f"\n{RUN}/pictures/samples-20.png: samples\n" in output
    assert_same_run(fetch(), straight)
    assert not list(program.folder.iterdir())


@pytest.mark.slow
def test_what_is_trained_in_a_bucket_is_evaluated_and_sampled_from(bucket, program, straight):
    program(*train())
    before = dict(bucket.objects)
    for words in (["evaluate", "--split=validation"], ["sample", "--n=4"]):
        assert program(*words, f"--workdir={RUN}") == program(*words, f"--workdir={straight}")
    assert bucket.objects == before
    assert [path.name for path in program.folder.iterdir()] == ["samples.png"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "part", "number"),
    [
        ("POST", "10/state/ocdbt.process_0/d/", 1),
        ("POST", "10/digest/metadata", 1),
        ("POST", "10/state/commit_success", 1),
        ("POST", "10/commit_success", 1),
        ("DELETE", "5/", 9),
    ],
)
def test_killed_in_the_middle_of_a_save_or_a_deletion(
    bucket, program, straight, fetch, method, part, number
):
    calls = []

    def kill(called, name):
        if called == method and f"checkpoints/{part}" in name:
            calls.append(name)
        if len(calls) == number:
            program.process.kill()
            raise ConnectionError

    bucket.before = kill
    program(*train(), status=-signal.SIGKILL)
    bucket.before = None
    left = dict(bucket.objects)
    assert any(f"checkpoints/{part.split('/')[0]}/" in name for name in left)
    if method == "POST":
        assert "\ntest, step 5: " in "\n" + program(*EVALUATE)
        assert bucket.objects == left
    step = {"POST": "5\n", "DELETE": "1"}[method]  # 10 or 15.
    assert f"going on from step {step}" in program(*train())
    assert_same_run(fetch(), straight)
    resumed_from = json.loads((fetch() / "result.json").read_text())["resumed_from"]
    assert resumed_from == 5 if method == "POST" else resumed_from > 5


@pytest.mark.slow
def test_two_processes(program, straight, fetch):
    two = [*LAUNCHER, "2"]
    for steps in (10, STEPS):
        output = program(*train(steps=steps), prefix=two)
    assert "going on from step 10\n" in output
    for record, expected in zip(records_of(fetch()), records_of(straight), strict=True):
        assert record == pytest.approx(expected, rel=1e-4)
    assert {path.name for path in (fetch() / "checkpoints").iterdir()} == {"15", "20"}
    for prefix in (MAIN, two):
        assert "\ntest, step 20: " in "\n" + program(*EVALUATE, prefix=prefix)


# ---- What goes wrong ----------------------------------------------------------------------------


def test_a_workdir_that_cannot_be_used(bucket, capfd, monkeypatch):
    monkeypatch.setattr(devices, "set_up_host_devices", lambda: None)  # JAX has its devices.

    def error(workdir=RUN, verb="evaluate"):
        words = train(workdir) if verb == "train" else [verb, f"--workdir={workdir}"]
        assert main.main(words) == 2
        output, errors = capfd.readouterr()
        (line,) = errors.splitlines()
        assert line.startswith("error: ") and (verb == "train" or not output)
        return line.removeprefix("error: ")

    no_bucket = "there is no bucket gs://other: create it, or choose another --workdir"
    assert error("gs://other/runs/a") == no_bucket
    for workdir in ("s3://bucket/a", "gcs://bucket/a", "gs:///a"):
        assert f"{workdir} is neither a folder nor in a bucket (gs://" in error(workdir)
    assert "gs://bucket/runs/a holds no training run: there is no config.json" in error()
    with monkeypatch.context() as patch:
        patch.setattr("pixel_rnn_jax.data.open_source", None)  # Nothing has been done before.
        assert error("gs://other/runs/a", "train") == no_bucket
    assert not bucket.objects
    bucket.objects_only = True
    assert "gs://bucket may not be used (no storage.buckets.get): give yourself" in error()
    bucket.refusal = 403
    assert "gs://bucket may not be used (It does not have the right to do" in error()
    monkeypatch.setattr(storage, "START_S", 0.2)
    bucket.refusal = 503
    assert "gs://bucket cannot be reached (Timeout of 0.2s exceeded" in error()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:1")
    assert "gs://bucket cannot be reached (Connection refused): look at" in error()
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    packages = "needs packages that are not installed: pip install 'pixel-rnn-jax[gcs]'"
    assert error() == f"{RUN} {packages}"


@pytest.mark.slow
def test_tensorflow_is_not_asked(bucket, program, tmp_path):
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow" / "__init__.py").write_text("raise ImportError('it was asked')")
    path = os.pathsep.join(map(str, (programs.ROOT, tmp_path)))
    program.environment = program.environment | {"PYTHONPATH": path}
    assert f"{RUN} holds no training run" in program(*EVALUATE, status=2)


# aiohttp's advice to gcsfs on large bodies.
@pytest.mark.filterwarnings("ignore:Sending a large body directly:ResourceWarning")
def test_records_grow_in_a_bucket(bucket, fetch):
    """To more than gcsfs sends in one piece."""
    noise = np.random.default_rng(0).integers(256, size=(1400, 1400, 3), dtype=np.uint8)
    for start in (0, 2):
        with MetricsWriter(RUN, start) as writer:
            for step in range(start + 1, start + 4):  # Step 3 is written twice.
                writer.write(step, {"train/nats": step / 4})
            if not start:
                writer.write_pictures(2, {"samples": noise})
            writer.flush()
    for folder in (RUN, fetch()):
        assert [record["step"] for record in read_records(folder)] == [1, 2, 3, 4, 5]
    assert [(step, tag) for step, tag, _ in shown(fetch())] == [
        *((1, "train/nats"), (2, "train/nats"), (2, "samples")),
        *((step, "train/nats") for step in (3, 4, 5)),
    ]
    assert max(len(stored.content) for stored in bucket.objects.values()) > 5 * 2**20


@pytest.mark.parametrize("status", [400, 403])  # Of which gcsfs makes different errors.
def test_records_that_cannot_be_written(bucket, status):
    with MetricsWriter(RUN, 0) as writer:
        writer.write(1, {"train/nats": 1.0})
        bucket.refusal = status
        with pytest.raises(CannotGoOn, match=f"^{RUN} cannot be written to: It does not have the"):
            writer.flush()


def refuse(bucket, method, part):
    """Lets the bucket refuse everything from the first such access to an object on."""

    def before(called, name):
        if called == method and part in name:
            bucket.refusal = 403
            raise ConnectionError

    bucket.before = before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("write", "said"),
    [
        ("config.json", f"{RUN} cannot be written to: "),
        ("metrics.jsonl", f"training stopped: {RUN} cannot be written to: "),
        *(
            (f"checkpoints/10/{name}", f"a checkpoint could not be written to {RUN}/checkpoints (")
            for name in ("", "state/ocdbt.process_0/d/", "digest/metadata")
        ),
    ],
)
def test_the_right_to_write_is_lost(bucket, program, straight, fetch, write, said):
    refuse(bucket, "POST", write)
    assert said in program(*train(), status=2)
    bucket.before = bucket.refusal = None
    program(*train())
    assert_same_run(fetch(), straight)


@pytest.mark.slow
def test_what_may_not_be_read_is_not_called_damaged(bucket, program):
    program(*train(steps=5))
    for read, said in [
        ("config.json", f"{RUN}/config.json cannot be read: It does not have the right"),
        ("images.json", f"{RUN}/images.json cannot be read: It does not have the right"),
        ("digest/metadata", f"checkpoint {RUN}/checkpoints/5 cannot be read (It does not have"),
        ("state/d/", f"checkpoint {RUN}/checkpoints/5 cannot be read (PERMISSION_DENIED: "),
    ]:
        refuse(bucket, "GET", read)
        line = program(*EVALUATE, status=2)
        assert said in line and "delete" not in line and len(line) < 400
        bucket.before = bucket.refusal = None
    for name in [name for name in bucket.objects if "checkpoints/5/state/d/" in name]:
        content = bytearray(bucket.objects[name].content)
        content[len(content) // 2] ^= 16
        bucket.write(name, bytes(content))
    damaged = f"checkpoint {RUN}/checkpoints/5 cannot be restored ("
    assert damaged in program(*EVALUATE, status=2)
