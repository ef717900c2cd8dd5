"""Damage to any file of a workdir: a sentence, or the result that there would be without it.

Quicker tests of single files are beside those of what reads them.
"""

import shutil

import jax
import numpy as np
import pytest
from workdirs import bits_of, changed

from pixel_rnn_jax import UserError, load
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training.train import train

pytestmark = pytest.mark.slow

STEPS, FLIPS = 8, 25
PICTURE = "pictures/samples-5.png"
DAMAGES = {
    "cut": lambda path, content: path.write_bytes(content[: len(content) // 2]),
    "empty": lambda path, content: path.write_bytes(b""),
    "deleted": lambda path, content: None,
    "picture": lambda path, content: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\n\n"),
    "folder": lambda path, content: path.mkdir(),
    "nested": lambda path, content: path.write_bytes(b"[" * 10**5 + b"\n"),
}
# What the damages, in this order, do to evaluation and to training that goes on: r if it is
# refused, and . if the result is the same. The data have moved, so that their digests are read.
TABLE = {
    "config.json": ("rrrrrr", "rrrrrr"),
    "images.json": ("rrrrrr", "rr.rrr"),
    "data.json": ("rr.rrr", "rrrrrr"),
    "metrics.jsonl": ("......", "...rrr"),
    "history.jsonl": ("......", "......"),
    "result.json": ("......", "....r."),
    PICTURE: ("......", "......"),
    "checkpoints/5/digest/metadata": ("rrrrrr", "rrrrrr"),
    "checkpoints/5/state/manifest.ocdbt": ("rrrrrr", "rrrrrr"),
    "checkpoints/6/digest/metadata": ("......", "rrrrrr"),
    "checkpoints/6/state/manifest.ocdbt": ("......", "rrrrrr"),
    "checkpoints/6/state/_METADATA": ("......", "rr.rrr"),
    "checkpoints/6/commit_success.txt": ("......", "......"),
}


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """A run whose data have moved, its config then, and what it comes to if nothing is damaged."""
    folder = tmp_path_factory.mktemp("trained")
    train(config, folder / "run")
    (folder / "run" / "history.jsonl").write_text('{"step": 0, "changed": {}}\n')
    moved = shutil.copy(config.data.name, folder / "moved.npz")
    later = changed(changed(config, "train", steps=STEPS), "data", name=str(moved))
    shutil.copytree(folder / "run", folder / "whole")
    return folder / "run", later, evaluated(folder / "run", later), gone_on(folder / "whole", later)


def evaluated(workdir, config):
    """The evaluation, where the data are now, and the model."""
    run = open_run(workdir, devices.local_mesh(1))
    run = evaluate.with_data(run, workdir, config.data.name)
    split, mesh = evaluate.open_split(run, "validation"), devices.local_mesh(1)
    found = evaluate.measure(run.model, run.params, split, 8, mesh, step=run.step)
    return found, bits(load(workdir))


def bits(model):
    leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(model.params)]
    return model.image_shape, model.levels, model.class_names, leaves


def gone_on(workdir, config):
    train(config, workdir)
    return bits_of(workdir, STEPS)


def outcome(function, workdir, config, expected):
    """Returns r if it is refused, . if the result is the same, and ! if it is another."""
    try:
        return "." if function(workdir, config) == expected else "!"
    except UserError as error:
        return "!" if "\n" in str(error) else "r"


@pytest.mark.parametrize("name", TABLE)
def test_damage(trained, tmp_path, rng, name):
    run, config, evaluation, state = trained
    content = (run / name).read_bytes()

    def damaged(damage):
        """Returns a copy of the run in which the file is damaged."""
        workdir = tmp_path / "run"
        shutil.rmtree(workdir, ignore_errors=True)
        shutil.copytree(run, workdir)
        (workdir / name).unlink()
        damage(workdir / name, content)
        return workdir

    def flip(path, content):
        at = rng.randrange(len(content))
        path.write_bytes(
            content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1 :]
        )

    works = (evaluated, evaluation), (gone_on, state)
    found = [
        "".join(outcome(work, damaged(damage), config, right) for damage in DAMAGES.values())
        for work, right in works
    ]
    assert tuple(found) == TABLE[name]
    flips = [outcome(evaluated, damaged(flip), config, evaluation) for _ in range(FLIPS)]
    flips += [outcome(gone_on, damaged(flip), config, state) for _ in range(FLIPS // 5)]
    assert "!" not in flips, flips
