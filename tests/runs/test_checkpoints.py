"""What is saved comes back bit for bit, and every fault is told in one sentence."""

import logging
import random
import resource
import shutil
import subprocess
import sys
import textwrap
import time

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import programs
import pytest
from jax.sharding import PartitionSpec

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runtime import devices, processes


def make_state(seed):
    """All dtypes that a train state holds, in the containers that optimisers use."""
    key = jax.random.key(seed)
    return {
        "params": {
            "conv": {"kernel": jax.random.normal(key, (7, 5)), "bias": jnp.zeros(5)},
            "head": jax.random.normal(key, (3, 4)).astype(jnp.bfloat16),
        },
        "average": {},
        "opt_state": ((), (jnp.asarray(seed, jnp.int32), {"nu": jax.random.normal(key, (40, 50))})),
        "step": jnp.asarray(seed, jnp.int32),
        "key": jax.random.key_data(key),
    }


def assert_restores(checkpoints, step, expected):
    template = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), expected
    )
    actual = checkpoints.restore(template, step)
    assert str(jax.tree.structure(actual)) == str(jax.tree.structure(expected))
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert (a.dtype, a.shape, a.sharding) == (b.dtype, b.shape, b.sharding)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def steps_on_disk(workdir):
    return sorted(int(path.name) for path in (workdir / "checkpoints").iterdir())


@pytest.fixture
def two_saved(tmp_path):
    """A reader of a workdir with steps 1 and 2, and the folder of step 2."""
    writer = Checkpoints(tmp_path)
    writer.save(1, make_state(1))
    writer.save(2, make_state(2), validation_nats=80.0)
    writer.close()
    return Checkpoints(tmp_path), tmp_path / "checkpoints" / "2"


def test_round_trip_in_another_instance(two_saved):
    checkpoints, path = two_saved
    assert checkpoints.latest_step() == 2
    checkpoints.save(2, make_state(7), validation_nats=1.0)  # It is stored already.
    for step in (1, 2):
        assert_restores(checkpoints, step, make_state(step))
    # Evaluation reads and checks only what it needs.
    params = {"params": make_state(2)["params"]}
    assert_restores(checkpoints, 2, params)
    shutil.rmtree(path / "state")
    with pytest.raises(UserError, match="damaged"):
        checkpoints.restore(params, 2)


def test_shardings_are_those_of_the_template(tmp_path):
    whole = devices.replicated(devices.make_mesh(2))
    split = whole.update(spec=PartitionSpec("data"))
    values = {"a": jnp.arange(8.0), "b": jnp.ones((2, 3))}
    checkpoints = Checkpoints(tmp_path)
    saved, exchanged = (
        {"params": jax.device_put(values, {"a": a, "b": b})}
        for a, b in ((split, whole), (whole, split))
    )
    checkpoints.save(1, saved)
    assert_restores(checkpoints, 1, saved)
    assert_restores(checkpoints, 1, exchanged)


def test_a_save_is_not_changed_by_training_that_goes_on(tmp_path):
    """The train step donates its state: its memory is reused while Orbax still writes."""
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = {"params": {"w": jnp.zeros(2_000_000)}}
    template = jax.eval_shape(lambda: state)
    checkpoints = Checkpoints(tmp_path)
    for step in range(3):
        checkpoints.save(step, state)
        for _ in range(5):
            state = advance(state)
        assert np.all(np.asarray(checkpoints.restore(template, step)["params"]["w"]) == 5 * step)


def test_newest_two_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest_step() is None
    assert checkpoints.best_step() is None
    expected = [
        # step, validation nats, on disk afterwards, best
        (1, None, [1], None),
        (2, float("nan"), [1, 2], None),
        (3, 85.0, [2, 3], 3),
        (4, 90.0, [3, 4], 3),
        (5, 86.0, [3, 4, 5], 3),
        (6, None, [3, 5, 6], 3),
        (7, 84.0, [6, 7], 7),
    ]
    for step, nats, on_disk, best in expected:
        checkpoints.save(step, {"params": jnp.ones(2)}, validation_nats=nats)
        checkpoints.wait()
        assert steps_on_disk(tmp_path) == on_disk
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (step, best)
        if step == 5:  # A resumed run remembers the best one.
            checkpoints = Checkpoints(tmp_path)
            assert checkpoints.best_step() == best


def test_read_only_changes_nothing(tmp_path):
    assert Checkpoints(tmp_path, read_only=True).latest_step() is None
    assert not list(tmp_path.iterdir())
    writer = Checkpoints(tmp_path)
    writer.save(1, make_state(1))
    writer.wait()
    half_written = tmp_path / "checkpoints" / "2.orbax-checkpoint-tmp"
    half_written.mkdir()
    assert_restores(Checkpoints(tmp_path, read_only=True), 1, make_state(1))
    assert half_written.exists()


def test_what_is_not_there(two_saved, tmp_path):
    with pytest.raises(UserError, match=r"no checkpoint .*/3: choose one of the steps \[1, 2\]"):
        two_saved[0].restore(make_state(0), 3)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/checkpoints \(Not a directory\): choose another"):
        Checkpoints(tmp_path / "file")


@pytest.mark.parametrize(
    ("entry", "subtree", "difference"),
    [
        ("key", jnp.zeros(3, jnp.uint32), r"key is uint32\[2\] there and uint32\[3\] here"),
        ("step", jnp.zeros(()), r"step is int32\[\] there and float32\[\] here"),
        ("average", {"w": jnp.zeros(1)}, r"average/w is absent there and float32\[1\] here"),
        ("opt_state", (), r"opt_state/1/0 is int32\[\] there and absent here"),
        ("scale", jnp.zeros(1), r"scale is absent there and float32\[1\] here"),
    ],
)
def test_another_model_is_refused(two_saved, entry, subtree, difference):
    checkpoints, path = two_saved
    with pytest.raises(UserError, match=f"{path} belongs to another model.*{difference}"):
        checkpoints.restore(make_state(2) | {entry: subtree}, 2)


# ---- Damage -------------------------------------------------------------------------------------


def damages(content, positions, rng):
    """The same file with one bit flipped at each position, cut short, and missing (None)."""
    for i in positions:
        yield content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]
    yield from (b"", content[: len(content) // 2], content[:-1], None)


@pytest.mark.parametrize(
    "flips", [8, pytest.param(300, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_damage_is_detected_or_harmless(two_saved, flips):
    """Some bytes are never read (Orbax keeps its files twice); but no other state comes back."""
    checkpoints, path = two_saved
    rng = random.Random(flips)
    detected, sentences = {}, set()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        content, name = file.read_bytes(), file.relative_to(path).as_posix()
        positions = rng.sample(range(len(content)), min(flips, len(content)))
        detected[name] = 0
        for damaged in damages(content, positions, rng):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            try:
                assert_restores(checkpoints, 2, make_state(2))
            except UserError as error:
                sentences.add(str(error))
                detected[name] += 1
            file.write_bytes(content)
    assert sentences == {
        f"Checkpoint {path} is damaged or incomplete, as it does not match its digest: "
        "delete this folder to fall back on step 1."
    }
    assert detected["digest/metadata"] == flips + 4  # Every one, as each of its bytes counts.
    # The file that holds the arrays: all but a byte here and there is theirs.
    assert max(n for name, n in detected.items() if name.startswith("state/ocdbt")) > flips / 2
    assert_restores(checkpoints, 2, make_state(2))


def test_an_array_that_changed_in_a_readable_file(two_saved, tmp_path):
    """What Orbax itself cannot see: valid files which hold other numbers."""
    checkpoints, path = two_saved
    state = make_state(2)
    writer = Checkpoints(tmp_path / "other")
    writer.save(2, state | {"step": state["step"] + 1})
    writer.wait()
    shutil.rmtree(path / "state")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "2" / "state", path / "state")
    with pytest.raises(UserError, match="delete this folder to fall back on step 1"):
        checkpoints.restore(state, 2)
    assert_restores(checkpoints, 2, {"params": state["params"]})


@pytest.mark.parametrize("missing", ["digest", "state", "digest/metadata"])
def test_a_missing_part(two_saved, tmp_path, missing):
    checkpoints, path = two_saved
    shutil.rmtree(path.parent / "1")
    (path / missing).rename(tmp_path / "away")
    with pytest.raises(UserError, match=f"{path} is damaged"):
        checkpoints.restore(make_state(2), 2)
    with pytest.raises(UserError, match="delete this folder to start again from step 0"):
        Checkpoints(tmp_path).restore(make_state(2), 2)


def test_a_damaged_digest_is_not_the_best(two_saved, tmp_path):
    checkpoints, path = two_saved
    digest = path / "digest" / "metadata"
    assert checkpoints.best_step() == 2
    digest.write_text(digest.read_text().replace("80.0", "8.00"))
    assert Checkpoints(tmp_path).best_step() is None


def test_a_checkpoint_without_access_is_not_called_damaged(two_saved, monkeypatch):
    def denied(*args, **kwargs):
        raise ValueError("PERMISSION_DENIED: ...: Permission denied [os_error_code='13'] [...]")

    monkeypatch.setattr(ocp.Checkpointer, "restore", denied)
    with pytest.raises(UserError, match=r"/2 cannot be read \(Permission denied\): look at your r"):
        two_saved[0].restore(make_state(2), 2)


# ---- Several processes --------------------------------------------------------------------------


def test_processes_wait_until_they_see_the_same_checkpoints(two_saved, monkeypatch):
    path = two_saved[1].parent
    shutil.move(path / "2", path.parent / "2")
    texts = []

    def all_equal(text):
        texts.append(text)
        return len(texts) > 1

    monkeypatch.setattr(processes, "all_equal", all_equal)
    monkeypatch.setattr(time, "sleep", lambda seconds: shutil.move(path.parent / "2", path))
    checkpoints = Checkpoints(path.parent, read_only=True)
    assert checkpoints.best_step() == checkpoints.latest_step() == 2
    assert texts == ['{"1": NaN}', '{"1": NaN, "2": 80.0}']


def test_processes_that_see_different_checkpoints_are_refused(two_saved, monkeypatch):
    slept = []
    monkeypatch.setattr(processes, "all_equal", lambda text: False)
    monkeypatch.setattr(time, "sleep", slept.append)
    with pytest.raises(UserError, match="the processes see different checkpoints.*--workdir must"):
        Checkpoints(two_saved[1].parents[1], read_only=True)
    assert slept == [1] * processes.STORAGE_S


# ---- A full disk --------------------------------------------------------------------------------


@pytest.fixture
def small_files_only():
    """No file may grow beyond 16 kB: a write fails half-way, as on a full disk, for any user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (16_384, hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("reported_by", ["save", "wait", "latest_step", "restore", "close"])
def test_a_write_that_fails_in_the_background(tmp_path, small_files_only, reported_by):
    checkpoints = Checkpoints(tmp_path)
    small = {"params": jnp.ones(2)}
    checkpoints.save(1, small, validation_nats=1.0)
    checkpoints.save(2, small)
    checkpoints.save(3, small)
    large = {"params": jax.random.normal(jax.random.key(0), (100_000,))}
    arguments = {"save": (5, large), "restore": (small, 3)}.get(reported_by, ())

    def save_and_call():
        checkpoints.save(4, large)
        getattr(checkpoints, reported_by)(*arguments)

    sentence = r"could not be written to .* \(File too large\): .*from step 3, the last good checkp"
    with pytest.raises(UserError, match=sentence):
        save_and_call()
    with pytest.raises(UserError, match=r"choose one of the steps \[1, 2, 3\]"):
        checkpoints.restore(small, 4)
    small_files_only()
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (3, 1)
    for step in (1, 2, 3):
        assert_restores(checkpoints, step, small)
    checkpoints.save(4, large)
    assert_restores(checkpoints, 4, large)
    assert steps_on_disk(tmp_path) == [1, 3, 4]


# ---- Other processes ----------------------------------------------------------------------------


HEADER = """
import sys
from pathlib import Path
import jax
import jax.numpy as jnp
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.checkpoints import Checkpoints
workdir = Path(sys.argv[1])
"""


def command(code, workdir):
    return [sys.executable, "-c", HEADER + textwrap.dedent(code), str(workdir)]


SAVE_FOR_EVER = """
    checkpoints = Checkpoints(workdir)
    for step in range(1, 10_000):
        print(step - 1, flush=True)
        checkpoints.save(step, {"params": {str(i): jnp.full(500_000, step) for i in range(6)}})
        checkpoints.wait()
"""


@pytest.mark.parametrize(
    "seed", [None, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(12))]
)
def test_killed_while_saving(tmp_path, seed):
    """In the middle of the save of step 3, or at any moment of two saves after that."""
    checkpoints = tmp_path / "checkpoints"
    until = "3.orbax-checkpoint-tmp" if seed is None else "[45]*"
    words, environment = command(SAVE_FOR_EVER, tmp_path), programs.environment()
    with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment, text=True) as process:
        while not list(checkpoints.glob(until)):
            assert process.poll() is None
            time.sleep(0.0005)
        if seed is not None:
            time.sleep(random.Random(seed).uniform(0, 0.4))
        process.kill()
        complete = int(process.communicate()[0].split()[-1])
    if seed is None:
        assert complete == 2 and list(checkpoints.glob("*tmp"))

    reader = Checkpoints(tmp_path)
    latest = reader.latest_step()
    assert latest in (complete, complete + 1)
    template = {"params": {str(i): jax.ShapeDtypeStruct((500_000,), jnp.int32) for i in range(6)}}
    for step in (latest, latest - 1):
        restored = reader.restore(template, step)["params"]
        assert all(np.all(np.asarray(array) == step) for array in restored.values())
    reader.save(latest + 2, restored)
    reader.close()
    assert steps_on_disk(tmp_path) == [latest, latest + 2]


DISK_FILLS = """
    checkpoints = Checkpoints(workdir)
    state = {"params": {str(i): jax.random.normal(jax.random.key(i), (20_000,)) for i in range(8)}}
    try:
        for step in range(1, 10):
            checkpoints.save(step, state)
        checkpoints.wait()
    except UserError as error:
        print(error)
    checkpoints.close()
    checkpoints = Checkpoints(workdir)
    last = checkpoints.latest_step()
    restored = checkpoints.restore(state, last)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), restored, state))
    (workdir / "filler").unlink()
    checkpoints.save(last + 1, state)
    checkpoints.close()
    print(last)
"""


@pytest.mark.parametrize(
    "pages", [570, *(pytest.param(n, marks=pytest.mark.slow) for n in range(560, 860, 12))]
)
def test_a_disk_that_is_really_full(tmp_path, pages):
    """A file system of 4 MB, in a name space of our own, where a third checkpoint does not fit."""
    fill = f"mount -t tmpfs -o size=4m tmpfs $0 && head -c {4096 * pages} /dev/zero > $0/filler && "
    prefix = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    may_mount = [*prefix, fill + "true", str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run(may_mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    words = *prefix, fill + 'exec "$@"', str(tmp_path), *command(DISK_FILLS, tmp_path)
    child = programs.run(*words)
    assert "Traceback" not in child.stderr
    sentence, last = child.stdout.splitlines()
    assert sentence == (
        f"A checkpoint could not be written to {tmp_path}/checkpoints (the disk is full): put that "
        f"right and start again, which goes on from step {last}, the last good checkpoint."
    )


RESTORE_DAMAGED = """
    for _ in range(5):
        try:
            Checkpoints(workdir).restore({"params": {str(i): jnp.ones(3) for i in range(30)}}, 1)
        except UserError as error:
            print(error)
"""


def test_nothing_of_orbax_reaches_the_terminal(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, {"params": {str(i): jnp.ones(3) for i in range(30)}})
    checkpoints.wait()
    path = tmp_path / "checkpoints" / "1"
    (path / "state" / "manifest.ocdbt").write_bytes(b"damaged")
    child = programs.run(*command(RESTORE_DAMAGED, tmp_path))
    assert child.stderr == ""
    lines = child.stdout.splitlines()
    assert len(lines) == 5 and all(f"Checkpoint {path} is damaged" in line for line in lines)


def test_messages_of_others_still_come_through(tmp_path, caplog):
    Checkpoints(tmp_path)
    caplog.clear()
    asyncio_log = logging.getLogger("asyncio")
    asyncio_log.error(
        "never retrieved", exc_info=ValueError("Error reading [tensorstore_spec=...]")
    )
    asyncio_log.error("never retrieved", exc_info=ValueError("of a notebook"))
    absl.logging.error("of absl")
    assert [record.getMessage() for record in caplog.records] == ["never retrieved", "of absl"]
    assert "of a notebook" in caplog.text
