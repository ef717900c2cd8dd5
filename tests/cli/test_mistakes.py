"""Wrong command lines: status 2, one line that names the flag or field, and no new file."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
from helpers.random_models import tiny_model
from PIL import Image

# A command and what the error names. MODEL stands for --model=m.safetensors, TRAIN for
# --config=digits with a new workdir.
ROWS = """
                                                    | --config
trian                                               | trian
TRAIN --worddir=x                                   | worddir
TRAIN --workdir=                                    | --workdir
TRAIN --config.model.featurs=3                      | config.model.features
TRAIN --steps=100                                   | --config.train.steps
TRAIN --data=x                                      | --config.data.name
TRAIN --model.layers=3                              | --config.model.layers
TRAIN --config.data.crop=90                         | data.crop
TRAIN --config.train.steps                          | config.train.steps
TRAIN --config.train.steps=1e3                      | train.steps
TRAIN --config.train.batch_size=5 --config.train.micro_batches=2 | train.micro_batches
TRAIN --config.model.skip=maybe                     | model.skip
TRAIN --config.model.scales=1,b                     | model.scales
TRAIN --config.data.name=missing.npy                | missing.npy
TRAIN --config.data.name=shapes.npz                 | data.test_split
TRAIN --config.data.validation_split=test           | data.validation_split
TRAIN --config.data.name=digits --config.model.total=3 | model.total
TRAIN --only_check_args                             | only_check_args
TRAIN --workdir=file://x/y                          | file://x/y
TRAIN --coordinator=a:1 --num_processes=1 --process_id=5 | --process_id
TRAIN --config.init_from=nowhere                    | nowhere
TRAIN --config.init_from=m.safetensors              | init_from
TRAIN --num_processes=2                             | --coordinator
TRAIN --coordinator=a:1 --process_id=0              | --coordinator
TRAIN --coordinator=a --num_processes=2 --process_id=0 | --coordinator
--config=nothing                                    | --config=nothing
--config=empty.py                                   | get_config
--config=wrong.py                                   | model.layers
--config=three.py                                   | three.py
--workdir=nowhere                                   | nowhere
TRAIN --workdir=own.npy                             | own.npy

prepare                                             | NAME
prepare minst                                       | minst
prepare mnist --from=full                           | --from
prepare cifar10 --from=bomb.npz                     | unpack

sample                                              | --model
sample --workdir=digits                             | digits
sample --model=digit                                | digits
sample --model=m.safetensor                         | m.safetensor
compress --model=gone.safetensors --images=own.npy  | gone.safetensors: no such file
decompress gone.prnn MODEL                          | gone.prnn: no such file
sample --workdir=mnist_gray                         | mnist_grey
sample MODEL --n=0                                  | --n
sample MODEL --plugin=nowhere.py                     | nowhere.py
sample MODEL five                                   | five
sample MODEL --temperature=inf                      | temperature
sample MODEL --seed=99999999999999999999            | too large
sample MODEL --out=a.jpg                            | --out
sample MODEL --out=gs://a/b.png                     | --out
sample MODEL --out=full                             | --out
sample MODEL --out=plain                            | --out
sample MODEL --out=own.npy/a.png                    | own.npy
sample --workdir=real.safetensors --out=new         | --out
sample MODEL --class=1                              | --class
sample --workdir=classes.safetensors --class=fir    | fir
sample --workdir=classes.safetensors --class=fir --condition=own.npy | --condition
sample --workdir=vectors.safetensors                | condition
sample --workdir=vectors.safetensors --condition=missing.npy | missing.npy
sample --workdir=vectors.safetensors --condition=text.png | text.png
sample --workdir=http://x/y                         | http://x/y

complete MODEL                                      | --images
complete MODEL --images=own.npy --known=half        | half
complete MODEL --images=own.npy --data_name=digits  | --data_name
complete MODEL --images=own.npy --config.seed=3     | --config.
complete MODEL --images=splits.npz                  | splits.npz

evaluate MODEL                                      | --images
evaluate MODEL --images=own.npy --class=1           | --class
evaluate --workdir=classes.safetensors --images=own.npy --class=fir | fir
evaluate --workdir=classes.safetensors --class=elm  | --class
evaluate MODEL --images=four.npy                    | four.npy
evaluate MODEL --images=floats.npy                  | floats.npy
evaluate MODEL --images=bomb.npz                    | bomb.npz
evaluate MODEL --images=bomb.png                    | bomb.png
evaluate MODEL --images=pipe.npy                    | pipe.npy
evaluate --workdir=total.safetensors --images=own.npy | model.total
evaluate --workdir=layers.safetensors --images=own.npy | layers.safetensors
evaluate --workdir=header.safetensors --images=own.npy | header
evaluate MODEL --images=own.npy --per_value         | --per_value

compress MODEL                                      | --images
compress --workdir=real.safetensors --images=floats.npy | output
decompress                                          | FILE
decompress --model=digits text.png                  | text.png
info text.png                                       | text.png
info /dev/zero                                      | /dev/zero
export MODEL --out=/                                | --out
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory, images):
    """The files that the commands name."""
    path = tmp_path_factory.mktemp("mistakes")
    for name, options in (
        ("m", {}),
        ("classes", dict(num_classes=3, class_names=("ash", "elm", "oak"))),
        ("vectors", dict(condition_vector=2)),
        ("total", dict(total=7)),
        ("real", dict(output="gaussian_mixture", levels=0)),
    ):
        tiny_model(image_shape=(4, 5, 1), **options).save(path / f"{name}.safetensors")
    splits = dict(train=images[:9], validation=images[9:20], test=images[20:])
    np.savez(path / "splits.npz", **splits)
    np.savez(path / "shapes.npz", **splits | dict(test=images[:, :3]))
    np.save(path / "own.npy", images[:3])
    np.save(path / "four.npy", images[:3] + 1)
    np.save(path / "floats.npy", images[:3] / 3)
    np.savez(path / "c.npz", images=images)
    np.savez_compressed(path / "bomb.npz", images=np.zeros((7_000_000, 4, 5), np.uint8))
    Image.new("1", (8000, 8000)).save(path / "bomb.png")
    os.mkfifo(path / "pipe.npy")
    content = (path / "m.safetensors").read_bytes()
    layers = content.replace(b'\\"layers\\": 1', b'\\"layers\\": 9')
    (path / "layers.safetensors").write_bytes(layers)
    (path / "header.safetensors").write_bytes(struct.pack("<Q", 2**23) + b"[[]," * 2**21)
    (path / "full").mkdir()
    Image.fromarray(images[0, ..., 0]).save(path / "full" / "0.png")
    for name in ("text.png", "plain"):
        (path / name).write_text("text")
    (path / "empty.py").write_text("")
    (path / "three.py").write_text("def get_config():\n    return 3\n")
    (path / "wrong.py").write_text("def get_config():\n    return {'model': {'layer': 3}}\n")
    return path


def written_files():
    files = (path for path in Path().rglob("*") if path.is_file() and path.name != "lock")
    return {path: path.stat().st_mtime_ns for path in files}


@pytest.mark.parametrize("row", [row for row in ROWS.strip("\n").splitlines() if row])
def test_a_mistake_is_named(cli, folder, monkeypatch, row):
    monkeypatch.chdir(folder)
    words, named = (part.strip() for part in row.split("|"))
    words = words.replace("MODEL", "--model=m.safetensors")
    before = written_files()
    status, _, err = cli(words.replace("TRAIN", "--workdir=new --config=digits"))
    *remarks, error = err.splitlines()
    assert status == 2, err
    assert "error: " in error and named in error
    assert not any("Error" in remark for remark in remarks), err
    assert written_files() == before
