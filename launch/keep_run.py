"""Keeps what a finished run tells: its log in docs, and if asked for, its model in the package.

    python launch/keep_run.py --workdir=runs/digits --name=digits [--model]

writes `docs/logs/digits/`: the config without folders of this machine, the format of the images,
the records and the result, which the verb `report` reads as it reads a workdir. With --model it
also writes `pixel_rnn_jax/weights/digits/`, where `pixel_rnn_jax.load` finds the model by its name:
the exported file, the config, the result, the digests of the data, and 100 test images with their
nats. Its `card.md` is written by hand; tests/cli/test_shipped.py checks that it has the numbers of
the result.
"""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
from absl import app, flags

import pixel_rnn_jax as prnn
from pixel_rnn_jax import shipped
from pixel_rnn_jax.config import to_json
from pixel_rnn_jax.runs.workdir import read_config

LOGS = Path(__file__).parents[1] / "docs" / "logs"
IMAGES = 100
_WORKDIR = flags.DEFINE_string("workdir", None, "The workdir of the run.", required=True)
_NAME = flags.DEFINE_string("name", None, "The name of the run or model.", required=True)
_MODEL = flags.DEFINE_bool("model", False, "Whether to keep the model as well.")


def main(_: list[str]) -> None:
    """Writes the folders."""
    workdir, name = Path(_WORKDIR.value), _NAME.value
    changes = [path.name for path in workdir.glob("history.jsonl")]
    keep_files(workdir, LOGS / name, "images.json", "metrics.jsonl", "result.json", *changes)
    if _MODEL.value:
        keep_files(workdir, shipped.FOLDER / name, "result.json", "data.json")
        keep_model(workdir, shipped.FOLDER / name)


def keep_files(workdir: Path, folder: Path, *names: str) -> None:
    """Copies files of a workdir, and its config without folders of this machine."""
    config = read_config(workdir)
    for place in (config.data.name, config.init_from):
        if Path(place).is_absolute():
            raise SystemExit(f"{workdir} names a folder of this machine, {place}")
    folder.mkdir(parents=True, exist_ok=True)
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, data_dir=""))
    (folder / "config.json").write_text(to_json(config))
    for name in names:
        shutil.copy(workdir / name, folder)
    print(f"{folder}: {', '.join(sorted(path.name for path in folder.iterdir()))}")


def keep_model(workdir: Path, folder: Path) -> None:
    """Writes the exported file, and test images with their nats."""
    model = prnn.load(workdir)
    model.save(folder / shipped.FILE)
    images, condition, _ = prnn.read_images(workdir, f"test[:{IMAGES}]")
    given = {} if condition is None else {"condition": condition}
    nats = -np.asarray(model.log_prob(images, condition))
    np.savez_compressed(folder / "slice.npz", images=images, nats=nats, **given)
    print(f"{folder}: {model!r}")


if __name__ == "__main__":
    app.run(main)
