"""What is saved comes back bit for bit, and every fault is told in one sentence."""

import collections
import errno
import logging
import os
import random
import re
import shutil
import subprocess
import sys
import textwrap
import time
from unittest.mock import Mock, call

import absl.logging
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import programs
import pytest
from jax.sharding import PartitionSpec
from workdirs import full_disk, saved_steps

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs import checkpoints as checkpoints_lib
from pixel_rnn_jax.runs.checkpoints import Checkpoints
from pixel_rnn_jax.runs.records import MetricsWriter
from pixel_rnn_jax.runtime import devices, processes


def slow(values):
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]


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
    with pytest.raises(UserError, match=f"^checkpoint {path} cannot be restored "):
        checkpoints.restore(params, 2)


def test_shardings_are_those_of_the_template(tmp_path):
    whole = devices.replicated(devices.make_mesh(2))
    split = whole.update(spec=PartitionSpec("data"))
    values = {"a": jnp.arange(8.0), "b": jnp.ones((2, 3))}
    checkpoints = Checkpoints(tmp_path)
    for a, b in ((split, whole), (whole, split)):
        state = {"params": jax.device_put(values, {"a": a, "b": b})}
        checkpoints.save(1, state)  # Only the first time.
        assert_restores(checkpoints, 1, state)


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
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (None, None)
    for step, nats, on_disk, best in [
        (1, None, {1}, None),
        (2, float("nan"), {1, 2}, None),
        (3, 85.0, {2, 3}, 3),
        (4, 90.0, {3, 4}, 3),
        (5, 86.0, {3, 4, 5}, 3),
        (6, None, {3, 5, 6}, 3),
        (7, 84.0, {6, 7}, 7),
    ]:
        checkpoints.save(step, {"params": jnp.ones(2)}, validation_nats=nats)
        checkpoints.wait()
        assert saved_steps(tmp_path) == on_disk
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (step, best)
        if step == 5:  # A resumed run remembers the best one.
            checkpoints = Checkpoints(tmp_path)
            assert checkpoints.best_step() == best


def test_read_only_changes_nothing(two_saved, tmp_path):
    new = tmp_path / "new"
    assert Checkpoints(new, read_only=True).latest_step() is None and not new.exists()
    half_written = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    half_written.mkdir()
    assert_restores(Checkpoints(tmp_path, read_only=True), 1, make_state(1))
    assert half_written.exists()


def test_what_is_not_there(two_saved, tmp_path, monkeypatch):
    with pytest.raises(UserError, match=r"no checkpoint .*/3: choose one of the steps \[1, 2\]"):
        two_saved[0].restore(make_state(0), 3)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/checkpoints \(Not a directory\): choose another"):
        Checkpoints(tmp_path / "file")
    refused = Mock(side_effect=PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
    monkeypatch.setattr(ocp, "CheckpointManager", refused)
    with pytest.raises(UserError, match=r"read from .*checkpoints \(Permission denied\): look at"):
        Checkpoints(tmp_path, read_only=True)


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


def damages(content, positions, rng):
    """The same file with one bit flipped at each position, cut short, and missing (None)."""
    for i in positions:
        yield content[:i] + bytes([content[i] ^ 1 << rng.randrange(8)]) + content[i + 1 :]
    yield from (b"", content[: len(content) // 2], content[:-1], None)


@pytest.mark.parametrize("flips", [8, *slow([300])])
def test_damage_is_detected_or_harmless(two_saved, flips):
    """Some bytes are never read (Orbax keeps its files twice); but no other state comes back."""
    checkpoints, path = two_saved
    rng = random.Random(flips)
    detected, sentences = collections.Counter(), set()
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        content, name = file.read_bytes(), file.relative_to(path).as_posix()
        positions = rng.sample(range(len(content)), min(flips, len(content)))
        for damaged in damages(content, positions, rng):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            try:
                assert_restores(checkpoints, 2, make_state(2))
            except UserError as error:
                sentences.add(re.sub(r"\(.*\)", "(...)", str(error)))
                detected[name] += 1
            file.write_bytes(content)
    assert sentences == {
        f"checkpoint {path} cannot be restored (...); if it is damaged or incomplete, delete this "
        "folder to fall back on step 1"
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
    with pytest.raises(UserError, match=r"restored \(it does not match its digest\); if it is dam"):
        checkpoints.restore(state, 2)
    assert_restores(checkpoints, 2, {"params": state["params"]})


@pytest.mark.parametrize("read_only", [False, True])
def test_a_damaged_digest_hides_no_best_checkpoint(two_saved, tmp_path, read_only, monkeypatch):
    """Another one would pass for the best, and the next save would delete this one."""
    monkeypatch.setattr(checkpoints_lib, "DELETED_S", 0.2)
    path, writer = two_saved[1], two_saved[0]
    writer.save(3, make_state(3), validation_nats=81.0)
    writer.close()
    digest = path / "digest" / "metadata"
    content = digest.read_bytes()
    for at in random.Random(0).sample(range(len(content)), 2):
        digest.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
        said = f"^checkpoint {path} cannot be restored .* delete this folder to fall back on step 3"
        with pytest.raises(UserError, match=said):
            Checkpoints(tmp_path, read_only=read_only)
    assert path.exists()
    digest.write_bytes(content)
    checkpoints = Checkpoints(tmp_path, read_only=read_only)
    assert (checkpoints.best_step(), checkpoints.validations()) == (2, {2: 80.0, 3: 81.0})


@pytest.mark.parametrize(("nats", "refused"), [(79.0, True), (90.0, False), (None, False)])
def test_a_killed_run_may_leave_what_it_was_deleting(two_saved, tmp_path, nats, refused):
    """The records of the run tell it from the best checkpoint."""
    two_saved[0].save(3, make_state(3), validation_nats=81.0)
    two_saved[0].close()
    path = tmp_path / "checkpoints" / "2"
    shutil.rmtree(path / "digest")
    with MetricsWriter(tmp_path, 0) as records:
        records.write(2, {"train/nats": 1.0} if nats is None else {"validation/nats": nats})
        records.write(3, {"validation/nats": 81.0})
    if refused:
        with pytest.raises(UserError, match=f"^checkpoint {path} cannot be restored"):
            Checkpoints(tmp_path)
    else:
        checkpoints = Checkpoints(tmp_path)
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (3, 3)


def test_a_checkpoint_that_is_deleted_while_it_is_read(two_saved, tmp_path, monkeypatch):
    """As a training does, which keeps the newest two and the best."""
    path = two_saved[1]
    shutil.rmtree(path / "digest")
    sleep = Mock(side_effect=lambda seconds: path.exists() and shutil.rmtree(path))
    monkeypatch.setattr(time, "sleep", sleep)
    assert Checkpoints(tmp_path, read_only=True).latest_step() == 1
    assert sleep.mock_calls == [call(1)]


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (
            ValueError("PERMISSION_DENIED: ...: Permission denied [os_error_code='13'] [...]"),
            r"cannot be read \(Permission denied\): look at your rights",
        ),
        (MemoryError(), r"cannot be restored \(MemoryError\); if it is damaged"),
    ],
)
def test_a_read_that_fails_for_another_reason(two_saved, monkeypatch, error, said):
    checkpoints, path = two_saved
    monkeypatch.setattr(ocp.Checkpointer, "restore", Mock(side_effect=error))
    with pytest.raises(UserError, match=f"^checkpoint {path} {said}"):
        checkpoints.restore(make_state(2), 2)


def test_processes_wait_until_they_see_the_same_checkpoints(two_saved, monkeypatch):
    path = two_saved[1].parent
    shutil.move(path / "2", path.parent / "2")
    all_equal = Mock(side_effect=[False, True])
    monkeypatch.setattr(processes, "all_equal", all_equal)
    monkeypatch.setattr(time, "sleep", lambda seconds: shutil.move(path.parent / "2", path))
    checkpoints = Checkpoints(path.parent, read_only=True)
    assert checkpoints.best_step() == checkpoints.latest_step() == 2
    assert all_equal.mock_calls == [call('{"1": NaN}'), call('{"1": NaN, "2": 80.0}')]

    monkeypatch.setattr(processes, "all_equal", lambda text: False)
    monkeypatch.setattr(time, "sleep", sleep := Mock())
    with pytest.raises(UserError, match="the processes see different checkpoints.*--workdir must"):
        Checkpoints(path.parent, read_only=True)
    assert sleep.mock_calls == [call(1)] * processes.STORAGE_S


@pytest.mark.parametrize("reported_by", ["save", "wait", "latest_step", "restore", "close"])
def test_a_write_that_fails_in_the_background(tmp_path, reported_by):
    checkpoints = Checkpoints(tmp_path)
    small = {"params": jnp.ones(2)}
    large = {"params": jax.random.normal(jax.random.key(0), (100_000,))}
    for step in (1, 2, 3):
        checkpoints.save(step, small, validation_nats=step)
    arguments = {"save": (5, large), "restore": (small, 3)}.get(reported_by, ())
    sentence = r"could not be written to .* \(File too large\): .*from step 3, the last good checkp"
    with full_disk(16_384):
        checkpoints.save(4, large)
        with pytest.raises(UserError, match=sentence):
            getattr(checkpoints, reported_by)(*arguments)
    with pytest.raises(UserError, match=r"choose one of the steps \[1, 2, 3\]"):
        checkpoints.restore(small, 4)
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (3, 1)
    for step in (1, 2, 3):
        assert_restores(checkpoints, step, small)
    checkpoints.save(4, large)
    assert_restores(checkpoints, 4, large)
    assert saved_steps(tmp_path) == {1, 3, 4}


# ---- Other programs -----------------------------------------------------------------------------


def command(code, workdir):
    header = """
        import sys
        from pathlib import Path
        import jax
        import jax.numpy as jnp
        from pixel_rnn_jax.errors import UserError
        from pixel_rnn_jax.runs.checkpoints import Checkpoints
        workdir = Path(sys.argv[1])
    """
    return [sys.executable, "-c", textwrap.dedent(header) + textwrap.dedent(code), str(workdir)]


SAVE_FOR_EVER = """
    checkpoints = Checkpoints(workdir)
    for step in range(1, 10_000):
        print(step - 1, flush=True)
        checkpoints.save(step, {"params": {str(i): jnp.full(500_000, step) for i in range(6)}})
        checkpoints.wait()
"""


@pytest.mark.parametrize("seed", [None, *slow(range(12))])
def test_killed_while_saving(tmp_path, seed):
    """In the middle of the save of step 3, or at any moment of two saves after that."""
    checkpoints = tmp_path / "checkpoints"
    until = "3.orbax-checkpoint-tmp" if seed is None else "[45]*"
    words, environment = command(SAVE_FOR_EVER, tmp_path), programs.environment()
    (tmp_path / "metrics.jsonl").touch()
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
    assert {path.name for path in checkpoints.iterdir()} == {str(latest), str(latest + 2)}


RESTORE = """
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
    child = programs.run(*command(RESTORE, tmp_path))
    said = [line[: line.index(" (")] for line in child.stdout.splitlines()]
    assert said == [f"checkpoint {path} cannot be restored"] * 5 and not child.stderr


def test_messages_of_others_still_come_through(tmp_path, caplog):
    Checkpoints(tmp_path)
    caplog.clear()
    for error in ("Error reading [tensorstore_spec=...]", "of a notebook"):
        logging.getLogger("asyncio").error("never retrieved", exc_info=ValueError(error))
    absl.logging.error("of absl")
    assert [record.getMessage() for record in caplog.records] == ["never retrieved", "of absl"]
    assert "of a notebook" in caplog.text
