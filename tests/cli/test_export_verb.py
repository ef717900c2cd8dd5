"""The verb `export`, and the verbs that take what it writes as --workdir."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from random_models import model_and_parameters
from workdirs import full_disk

import pixel_rnn_jax as prnn
from pixel_rnn_jax import image_model
from pixel_rnn_jax.codec import identity

IMAGES = np.random.default_rng(0).integers(3, size=(3, 4, 5, 1), dtype=np.uint8)


@pytest.fixture
def model(tmp_path, monkeypatch):
    """A model in the file a.safetensors of an empty folder, with images in own.npy."""
    monkeypatch.chdir(tmp_path)
    tiny = dict(layers=1, features=2, first_kernel=3, head_features=3)
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (4, 5, 1), 3, **tiny))
    model.save("a.safetensors")
    np.save("own.npy", IMAGES)
    return model


@pytest.fixture
def printed(run, capsys):
    """Runs a command, and returns what it prints."""

    def command(words, status=0):
        assert run(words) == status
        out, err = capsys.readouterr()
        return err if status else out

    return command


def test_export(model, printed, monkeypatch):
    load, seen = image_model.load, []
    monkeypatch.setattr(
        image_model, "load", lambda path: seen.append(path) or load("a.safetensors")
    )
    out = printed("export --workdir=runs/a --out=new/b.safetensors")
    assert seen == ["runs/a"]
    assert Path("new/b.safetensors").read_bytes() == Path("a.safetensors").read_bytes()
    size = Path("a.safetensors").stat().st_size
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    digest = identity.model_digest(model.pixel_rnn, model.params).hex()
    assert out == f"new/b.safetensors: {size:,} bytes, {count:,} parameters, digest {digest}\n"


def test_verbs_that_need_a_model_only(model, printed):
    workdir = "--workdir=a.safetensors"
    printed(f"sample {workdir} --n=2 --seed=7 --out=s.npz")
    with np.load("s.npz") as file:
        np.testing.assert_array_equal(file["images"], model.sample(jax.random.key(7), 2))
    out = printed(f"complete {workdir} --images=own.npy --out=c.npz")
    assert "\nc.npz: 3 completions; " in f"\n{out}"
    with np.load("c.npz") as file:
        np.testing.assert_array_equal(file["images"][:, :2], IMAGES[:, :2])
    nats = -np.asarray(model.log_prob(IMAGES)).mean()
    said = printed(f"evaluate {workdir} --images=own.npy --out=scores.npz")
    assert said.startswith(f"own.npy: {nats:.3f} ± ")
    printed(f"compress {workdir} --images=own.npy --out=x.prnn")
    printed(f"decompress x.prnn {workdir} --out=back.npz")
    with np.load("back.npz") as file:
        np.testing.assert_array_equal(file["images"], IMAGES)
    printed(f"evaluate {workdir} --images=own.npy --pixel_map=p.png")
    a_full_disk_leaves_all_as_it_was(printed, workdir)


def a_full_disk_leaves_all_as_it_was(printed, workdir):
    """All is compiled by now, so that only the outputs are written."""
    for words in (
        "sample --n=2 --out=s.npz",
        "sample --n=2 --out=s.png",
        "sample --n=2 --out=new",
        "complete --images=own.npy --out=c.npz",
        "complete --images=own.npy --out=c.png",
        "evaluate --images=own.npy --out=e.npz",
        "evaluate --images=own.npy --pixel_map=e.png",
        "compress --images=own.npy --out=x.prnn",
        "append --images=own.npy x.prnn",
        "decompress x.prnn --out=back.npz",
        "export --out=m.safetensors",
    ):
        before = {path: path.read_bytes() for path in Path().iterdir()}
        with full_disk(50):
            error = printed(f"{words} {workdir}", status=2)
        out = re.split("[= ]", words)[-1]
        assert error == f"error: {out} cannot be written: File too large\n"
        assert {path: path.read_bytes() for path in Path().iterdir()} == before
