"""Workdirs: who may train in one, and which parameters of a run are opened."""

import contextlib
import subprocess
import sys

import jax
import numpy as np
import pytest
from helpers import programs
from helpers.random_models import random_like

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import ImageFormat
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.runs.config import Config, OptimizerConfig, to_json
from pixel_rnn_jax.runs.source import open_run
from pixel_rnn_jax.runs.workdir import Checkpoints, RunIdentity, lock
from pixel_rnn_jax.system import devices
from pixel_rnn_jax.system.errors import UserError

IMAGES = ImageFormat((3, 4, 1), 2)
HOLD = """
import sys, time
from pixel_rnn_jax.runs.workdir import lock
with lock(sys.argv[1]):
    print("locked", flush=True)
    time.sleep(100)
"""


def test_a_lock_that_is_a_link_is_not_followed(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "lock").symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match="lock"), lock(tmp_path):
        pass
    assert (tmp_path / "precious").read_text() == "precious"


def test_a_killed_process_does_not_block(tmp_path):
    words = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    environment = programs.environment()
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "locked\n"
        refused = pytest.raises(UserError, match=rf"--workdir.*process {process.pid} ")
        with refused, lock(tmp_path / "run"):
            pass
        process.kill()
    with lock(tmp_path / "run"):
        pass


@pytest.mark.parametrize("ema_decay", [0.0, 0.9])
@pytest.mark.parametrize(("validations", "step"), [((None, None), 2), ((3.0, 4.0), 1)])
def test_a_run_is_opened_with_its_best_parameters(tmp_path, ema_decay, validations, step):
    model_config = ModelConfig("pixel_cnn", layers=1, features=2, head_features=2)
    config = Config(model=model_config, optimizer=OptimizerConfig(ema_decay=ema_decay))
    (tmp_path / "config.json").write_text(to_json(config))
    shapes = jax.eval_shape(IMAGES.model(model_config).init, jax.random.key(0))
    params, averages = ([random_like(shapes, seed) for seed in seeds] for seeds in ((1, 2), (3, 4)))
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        for saved, nats in enumerate(validations):
            state = {"params": params[saved], "ema": averages[saved] if ema_decay else {}}
            checkpoints.save(saved + 1, state, RunIdentity(config, IMAGES, {}), nats)
    mesh = devices.make_mesh(2)
    run = open_run(tmp_path, mesh)
    assert (run.identity, run.step) == (RunIdentity(config, IMAGES, {}), step)
    expected = (averages if ema_decay else params)[step - 1]
    opened_params = run.image_model.params
    for opened in (opened_params, prnn.load(tmp_path).params):
        jax.tree.map(np.testing.assert_array_equal, opened, expected)
    assert {leaf.sharding for leaf in jax.tree.leaves(opened_params)} == {devices.replicated(mesh)}


def test_a_workdir_whose_config_its_parameters_do_not_explain_is_refused(tmp_path):
    """At once: nothing of its size is made."""
    config = Config(model=ModelConfig("pixel_cnn", layers=1, features=10**6))
    (tmp_path / "config.json").write_text(to_json(config))
    with contextlib.closing(Checkpoints(tmp_path)) as checkpoints:
        checkpoints.save(1, {"params": {"bias": np.zeros(9)}}, RunIdentity(config, IMAGES, {}))
    with pytest.raises(UserError, match=f"{tmp_path}.*parameters"):
        open_run(tmp_path, devices.local_mesh(1))


def test_a_workdir_without_a_run_is_named(tmp_path):
    (tmp_path / "config.json").write_text(to_json(Config()))
    with pytest.raises(UserError, match=str(tmp_path)):
        open_run(tmp_path, devices.local_mesh(1))
