"""The commands on a tiny trained model: files and what is printed against the model itself."""

import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from PIL import Image

from pixel_rnn_jax import block_coder, commands, pictures
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel, load
from pixel_rnn_jax.sources import open_records
from pixel_rnn_jax.train import train

IMAGES = np.random.default_rng(0).integers(3, size=(40, 4, 5, 1), dtype=np.uint8)
SAMPLE: dict[str, Any] = {"n": 5, "temperature": 1.0, "seed": 7}
COMPLETE: dict[str, Any] = {
    "images": None,
    "n": None,
    "known": "top_half",
    "particles": 1,
    "seed": 7,
}


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A run of two steps on images of three levels."""
    folder = tmp_path_factory.mktemp("run")
    splits = np.split(IMAGES, [10, 20])
    np.savez(folder / "images.npz", train=splits[0], validation=splits[1], test=splits[2])
    config = Config(
        model=ModelConfig("pixel_cnn", layers=1, features=2, first_kernel=3, head_features=3),
        data=DataConfig(name=str(folder / "images.npz"), levels=3),
        train=TrainConfig(steps=2, batch_size=8),
    )
    train(config, folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(workdir: str) -> ImageModel:
    return load(workdir)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def _array(file: str) -> np.ndarray:
    with np.load(file) as arrays:
        return arrays["images"]


def test_sample(workdir: str, model: ImageModel, capsys: pytest.CaptureFixture[str]) -> None:
    commands.sample(workdir, "new/samples.npz", **SAMPLE)
    images = _array("new/samples.npz")
    np.testing.assert_array_equal(images, model.sample(jax.random.key(7), 5))
    nats = -model.log_prob(images).mean()
    out = capsys.readouterr().out
    assert out == (
        f"new/samples.npz: 5 samples, on average {nats:.2f} nats, "
        f"{nats / 20 / math.log(2):.4f} bits/dim\n"
    )
    commands.sample(workdir, "samples.png", **SAMPLE)
    with Image.open("samples.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pictures.grid(images, 3))
    commands.sample(workdir, "samples", **SAMPLE)
    assert [path.name for path in sorted(Path("samples").iterdir())] == [
        f"{i}.png" for i in range(5)
    ]


def test_temperature_and_seed(workdir: str, model: ImageModel) -> None:
    changes: dict[str, dict] = {"same": {}, "seed": {"seed": 8}, "cold": {"temperature": 0.0}}
    for name, changed in changes.items():
        commands.sample(workdir, f"{name}.npz", **SAMPLE | changed)
    np.testing.assert_array_equal(_array("same.npz"), model.sample(jax.random.key(7), 5))
    assert (_array("seed.npz") != _array("same.npz")).any()
    cold = _array("cold.npz")
    assert (cold == cold[:1]).all()


def test_complete_the_test_split(
    workdir: str, model: ImageModel, capsys: pytest.CaptureFixture[str]
) -> None:
    known = np.arange(4)[:, None] < np.full(5, 2)
    expected = model.complete(jax.random.key(7), IMAGES[20:36], known)
    commands.complete(workdir, "done.npz", **COMPLETE)
    completed = _array("done.npz")
    np.testing.assert_array_equal(completed, expected.images)
    np.testing.assert_array_equal(completed[:, :2], IMAGES[20:36, :2])
    nats = -model.log_prob(completed, per_pixel=True)[:, :2].sum(axis=(1, 2, 3)).mean()
    out = capsys.readouterr().out
    assert out == f"done.npz: 16 completions; the known values have {nats:.2f} nats on average\n"
    commands.complete(workdir, "done.png", **COMPLETE | {"n": 3})
    masks = np.broadcast_to(known[..., None], (3, 4, 5, 1))
    with Image.open("done.png") as picture:
        np.testing.assert_array_equal(
            np.asarray(picture), pictures.completions(IMAGES[20:23], masks, completed[:3], 3)
        )


def test_complete_own_images(workdir: str, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("own.npy", IMAGES[:2])
    Image.fromarray(np.eye(4, 5, dtype=bool)).save("mask.png")
    own = COMPLETE | {"images": "own.npy", "known": "mask.png"}
    commands.complete(workdir, "done", **own)
    assert "known values that come after unknown ones were not looked at" in capsys.readouterr().out
    for index, name in enumerate(("0.png", "1.png")):
        with Image.open(Path("done", name)) as image:
            completed = np.asarray(image)
        diagonal = np.arange(4)
        np.testing.assert_array_equal(completed[diagonal, diagonal], IMAGES[index].diagonal()[0])
    commands.complete(workdir, "done.png", **own | {"n": 1, "particles": 4})
    out = capsys.readouterr().out
    assert out.startswith("done.png: 1 completions")
    size = re.search(r"effective sample size: at least (\S+) of 4 particles\n$", out)
    assert size and 1 <= float(size[1]) <= 4


def test_pixel_map(workdir: str, model: ImageModel, capsys: pytest.CaptureFixture[str]) -> None:
    commands.pixel_map(workdir, "map.png", split="validation")
    images = IMAGES[10:20]
    nats = -model.log_prob(images, per_pixel=True).sum(-1)
    with Image.open("map.png") as picture:
        np.testing.assert_array_equal(np.asarray(picture), pictures.pixel_map(images, nats, 3))
    out = capsys.readouterr().out
    assert out == f"map.png: 10 images; white is {nats.max():.2f} nats, black is none\n"


@pytest.mark.parametrize("images", ["own.npz", "own"])
def test_compress_and_decompress(
    workdir: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    images: str,
) -> None:
    monkeypatch.setattr(block_coder, "LANES", 16)
    pictures.write_images(IMAGES, 3, images)
    commands.compress(workdir, "own.prnn", images=images)
    size = Path("own.prnn").stat().st_size
    commands.decompress(workdir, "back", file="own.prnn", skip_damaged=False)
    assert capsys.readouterr().out == (
        f"own.prnn: {size:,} bytes for 40 images, {8 * size / 800:.4f} bits/dim "
        "(200 bytes uncompressed)\nback: 40 images\n"
    )
    back = open_records(DataConfig(name="./back"), "all")
    np.testing.assert_array_equal(back.read(np.arange(40)), IMAGES)

    stream = bytearray(Path("own.prnn").read_bytes())
    stream[-1] ^= 1
    Path("own.prnn").write_bytes(stream)
    with pytest.raises(UserError, match="damaged"):
        commands.decompress(workdir, "rest.npz", file="own.prnn", skip_damaged=False)
    assert not Path("rest.npz").exists()
    commands.decompress(workdir, "rest.npz", file="own.prnn", skip_damaged=True)
    assert "\n8 of 40 images are lost" in capsys.readouterr().out
    np.testing.assert_array_equal(_array("rest.npz"), IMAGES[:32])


def test_compress_leaves_no_half_file(workdir: str) -> None:
    """Images that do not fit show late; what had the name before stays."""
    Path("own.prnn").write_text("precious")
    np.save("own.npy", IMAGES + 1)
    with pytest.raises(UserError, match="images must have values from 0 to 2"):
        commands.compress(workdir, "own.prnn", images="own.npy")
    assert sorted(path.name for path in Path().iterdir()) == ["own.npy", "own.prnn"]
    assert Path("own.prnn").read_text() == "precious"
    with pytest.raises(UserError, match="own.npy/own.prnn cannot be written: "):
        commands.compress(workdir, "own.npy/own.prnn", images="own.npy")
    Path("folder").mkdir()
    with pytest.raises(UserError, match="folder is a folder"):
        commands.compress(workdir, "folder", images="own.npy")
    with pytest.raises(UserError, match="missing.prnn cannot be read: No such file"):
        commands.decompress(workdir, "a.npz", file="missing.prnn", skip_damaged=False)


def test_mistakes_are_found_before_any_work(workdir: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("sample", "complete", "log_prob"):
        monkeypatch.setattr(ImageModel, name, lambda *_, **__: pytest.fail("worked"))
    message = "a .png or .npz file, or to a folder without an ending, got 'a.jpg'"
    with pytest.raises(UserError, match=message):
        commands.sample(workdir, "a.jpg", **SAMPLE)
    with pytest.raises(UserError, match=message):
        commands.complete(workdir, "a.jpg", **COMPLETE)
    with pytest.raises(UserError, match="ends in .png, got 'a.jpg'"):
        commands.pixel_map(workdir, "a.jpg", split="test")
    with pytest.raises(UserError, match="what is known must be top_half, .* got 'half'"):
        commands.complete(workdir, "a.png", **COMPLETE | {"known": "half"})
    with pytest.raises(UserError, match="--images '.*missing.npy': there is no such file"):
        commands.complete(workdir, "a.png", **COMPLETE | {"images": "missing.npy"})
    # A word that could be the name of a TFDS set is a folder here.
    with pytest.raises(UserError, match="--images '.*/mnist': there is no such folder"):
        commands.complete(workdir, "a.png", **COMPLETE | {"images": "mnist"})
    with pytest.raises(UserError, match="holds no training run"):
        commands.sample("nowhere", "a.png", **SAMPLE)


def test_images_that_do_not_fit(workdir: str) -> None:
    for images, message in (
        (IMAGES + 1, "images must have values from 0 to 2, got 1 to 3"),
        (IMAGES[:, :3], r"images must have shape \[B, 4, 5, 1\]"),
    ):
        np.save("own.npy", images)
        with pytest.raises(UserError, match=message):
            commands.complete(workdir, "a.png", **COMPLETE | {"images": "own.npy"})
