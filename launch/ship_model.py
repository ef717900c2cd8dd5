"""Puts the model of a finished run into the package, where `pixel_rnn_jax.load` finds it by a name.

    python launch/ship_model.py --workdir=runs/digits --name=digits

writes `pixel_rnn_jax/weights/digits/`: the exported file, the config without folders of this
machine, the result, the digests of the data, and 100 test images with their nats. Its `card.md` is
written by hand; tests/cli/test_shipped.py checks that it has the numbers of the result.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
from absl import app, flags

import pixel_rnn_jax as prnn
from pixel_rnn_jax import shipped
from pixel_rnn_jax.config import to_json
from pixel_rnn_jax.runs.workdir import WEIGHTS, read_config

IMAGES = 100
_WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of the run.", required=True)
_NAME = flags.DEFINE_string("name", None, "The name of the model.", required=True)


def main(_: list[str]) -> None:
    """Writes the folder."""
    workdir, folder = Path(_WORKDIR.value), shipped.FOLDER / _NAME.value
    result = json.loads((workdir / "result.json").read_text())
    config = read_config(workdir)
    folder.mkdir(parents=True, exist_ok=True)
    model = prnn.load(workdir)
    model.save(folder / WEIGHTS)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=""))
    (folder / "config.json").write_text(to_json(config))
    for name in ("result.json", "data.json"):
        shutil.copy(workdir / name, folder)
    images, condition, _ = prnn.read_images(workdir, "test")
    given = {} if condition is None else {"condition": condition[:IMAGES]}
    nats = -np.asarray(model.log_prob(images[:IMAGES], given.get("condition")))
    np.savez_compressed(folder / "slice.npz", images=images[:IMAGES], nats=nats, **given)
    print(f"{folder}: {result['test']['nats']:.3f} nats, {len(images):,} test images")


if __name__ == "__main__":
    app.run(main)
