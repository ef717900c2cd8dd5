"""What is saved comes back bit for bit; nothing else does."""

import contextlib
import random
import shutil
import subprocess
import sys
import textwrap
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from helpers import programs
from helpers.workdirs import full_disk, saved_steps

from pixel_rnn_jax.data import ImageFormat
from pixel_rnn_jax.runs.config import Config
from pixel_rnn_jax.runs.workdir import Checkpoints, RunIdentity
from pixel_rnn_jax.system.errors import UserError

IDENTITY = RunIdentity(
    Config(), ImageFormat((4, 4, 1), 0, (49.9,), (4.5,), ("a", "b")), {"train": "x"}
)
# What fails in other threads of Orbax after the error that is raised.
ORBAX_THREADS = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def make_state(seed):
    """All dtypes that a train state holds, in the containers that optimisers use."""
    key = jax.random.key(seed)
    return {
        "params": {
            "conv": {"kernel": jax.random.normal(key, (7, 5)), "bias": jnp.zeros(5)},
            "head": jax.random.normal(key, (3, 4)).astype(jnp.bfloat16),
        },
        "ema": {},
        "opt_state": ((), (jnp.asarray(seed, jnp.int32), {"nu": jax.random.normal(key, (40, 50))})),
        "step": jnp.asarray(seed, jnp.int32),
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
    with contextlib.closing(Checkpoints(tmp_path)) as writer:
        writer.save(1, make_state(1), IDENTITY)
        writer.save(2, make_state(2), IDENTITY, 80.0)
    return Checkpoints(tmp_path, read_only=True), tmp_path / "checkpoints" / "2"


def test_round_trip_in_another_instance(two_saved):
    checkpoints, _ = two_saved
    assert checkpoints.latest_step() == 2
    for step in (1, 2):
        assert checkpoints.identity(step) == IDENTITY
        assert_restores(checkpoints, step, make_state(step))
    # Evaluation reads and checks only what it needs.
    assert_restores(checkpoints, 2, {"params": make_state(2)["params"]})


def test_a_save_is_not_changed_by_training_that_goes_on(tmp_path):
    """The train step donates its state: its memory is reused while Orbax still writes."""
    advance = jax.jit(lambda state: jax.tree.map(lambda x: x + 1, state), donate_argnums=0)
    state = {"params": {"w": jnp.zeros(2_000_000)}}
    template = jax.eval_shape(lambda: state)
    checkpoints = Checkpoints(tmp_path)
    for step in range(3):
        checkpoints.save(step, state, IDENTITY)
        for _ in range(5):
            state = advance(state)
        assert np.all(np.asarray(checkpoints.restore(template, step)["params"]["w"]) == 5 * step)


def test_newest_two_and_best_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (None, None)
    for step, nats, on_disk, best in [
        (1, None, {1}, None),
        (2, None, {1, 2}, None),
        (3, 85.0, {2, 3}, 3),
        (4, 90.0, {3, 4}, 3),
        (5, 86.0, {3, 4, 5}, 3),
        (6, None, {3, 5, 6}, 3),
        (7, 84.0, {6, 7}, 7),
    ]:
        checkpoints.save(step, {"params": jnp.ones(2)}, IDENTITY, nats)
        checkpoints.wait()
        assert saved_steps(tmp_path) == on_disk
        assert (checkpoints.latest_step(), checkpoints.best_step()) == (step, best)
        if step == 5:  # A resumed run remembers the best one.
            checkpoints = Checkpoints(tmp_path)
            assert checkpoints.best_step() == best


def test_read_only_changes_nothing(two_saved, tmp_path):
    half_written = tmp_path / "checkpoints" / "3.orbax-checkpoint-tmp"
    half_written.mkdir()
    assert_restores(Checkpoints(tmp_path, read_only=True), 1, make_state(1))
    assert half_written.exists()


def test_another_model_is_refused(two_saved):
    for entry, subtree, named in (
        ("step", jnp.zeros(()), "step"),
        ("ema", {"w": jnp.zeros(1)}, "ema/w"),
        ("opt_state", (), "opt_state/1/0"),
    ):
        with pytest.raises(UserError, match=named):
            two_saved[0].restore(make_state(2) | {entry: subtree}, 2)


def test_arrays_of_another_checkpoint_are_refused(two_saved, tmp_path):
    """What Orbax itself cannot see: valid files which hold other numbers."""
    checkpoints, path = two_saved
    state = make_state(2)
    with contextlib.closing(Checkpoints(tmp_path / "other")) as writer:
        writer.save(2, state | {"step": state["step"] + 1}, IDENTITY)
    shutil.rmtree(path / "state")
    shutil.copytree(tmp_path / "other" / "checkpoints" / "2" / "state", path / "state")
    with pytest.raises(UserError, match="SHA-256"):
        checkpoints.restore(state, 2)
    assert_restores(checkpoints, 2, {"params": state["params"]})


def test_a_checkpoint_of_another_step_or_damaged_is_named(two_saved):
    checkpoints, path = two_saved
    shutil.copytree(path, path.with_name("3"))
    reader = Checkpoints(path.parents[1], read_only=True)
    with pytest.raises(UserError, match=rf"{path.with_name('3')}.*step"):
        reader.identity(3)
    assert checkpoints.sealed(2)["progress"] == [0, 0]
    (path / "identity" / "metadata").write_bytes(b"{")
    with pytest.raises(UserError, match=f"{path}.*delete"):
        checkpoints.identity(2)
    (path / "metrics" / "metrics").write_bytes(b"{")
    with pytest.raises(UserError, match=str(path.parent)):
        Checkpoints(path.parents[1], read_only=True)


@ORBAX_THREADS
def test_a_write_that_fails_in_the_background(tmp_path):
    """It is reported by the next call, and what was saved before it stays."""
    checkpoints = Checkpoints(tmp_path)
    small = {"params": jnp.ones(2)}
    large = {"params": jax.random.normal(jax.random.key(0), (100_000,))}
    for step in (1, 2, 3):
        checkpoints.save(step, small, IDENTITY, float(step))
    with full_disk(16_384):
        checkpoints.save(4, large, IDENTITY)
        with pytest.raises(Exception, match=r"(?i)file too large|os_error_code='27'"):
            checkpoints.wait()
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest_step(), checkpoints.best_step()) == (3, 1)
    for step in (1, 2, 3):
        assert_restores(checkpoints, step, small)
    checkpoints.save(4, large, IDENTITY)
    assert_restores(checkpoints, 4, large)
    assert saved_steps(tmp_path) == {1, 3, 4}


SAVE_FOR_EVER = """
    import sys
    from pathlib import Path
    import jax.numpy as jnp
    from pixel_rnn_jax.runs.config import Config
    from pixel_rnn_jax.runs.workdir import Checkpoints
    from pixel_rnn_jax.data import ImageFormat
    from pixel_rnn_jax.runs.workdir import RunIdentity
    checkpoints = Checkpoints(Path(sys.argv[1]))
    identity = RunIdentity(Config(), ImageFormat((4, 4, 1), 2), {})
    for step in range(1, 10_000):
        print(step - 1, flush=True)
        state = {"params": {str(i): jnp.full(500_000, step) for i in range(6)}}
        checkpoints.save(step, state, identity, float(-step))
        checkpoints.wait()
"""


@pytest.mark.parametrize(
    "seed", [None, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2))]
)
def test_killed_while_saving(tmp_path, seed):
    """In the middle of the save of step 3, or at any moment of two saves after that."""
    checkpoints = tmp_path / "checkpoints"
    until = "3.orbax-checkpoint-tmp" if seed is None else "[45]*"
    words = [sys.executable, "-c", textwrap.dedent(SAVE_FOR_EVER), str(tmp_path)]
    environment = programs.environment()
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
    assert latest in (complete, complete + 1) and reader.best_step() == latest
    template = {"params": {str(i): jax.ShapeDtypeStruct((500_000,), jnp.int32) for i in range(6)}}
    for step in (latest, latest - 1):
        restored = reader.restore(template, step)["params"]
        assert all(np.all(np.asarray(array) == step) for array in restored.values())
    reader.save(latest + 2, {"params": restored}, IDENTITY)
    reader.close()
    assert {path.name for path in checkpoints.iterdir()} == {str(latest), str(latest + 2)}
