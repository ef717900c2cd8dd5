"""The commands on tiny models: the files that they write, against the model itself."""

import json
import math
from pathlib import Path

import jax
import numpy as np
import pytest
from helpers.programs import SMALL
from helpers.random_models import tiny_model
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax.data import pictures
from pixel_rnn_jax.model.layers import BODIES

TOP = np.arange(4)[:, None] < np.full(5, 2)
NAMES = "ash", "elm", "oak"
FIELDS = SMALL | {"train.steps": 2, "train.batch_size": 8}
RUN = " ".join(f"--config.{name}={value}" for name, value in FIELDS.items())


def arrays(file):
    with np.load(file) as content:
        return dict(content)


def picture(file):
    with Image.open(file) as image:
        return np.asarray(image)


@pytest.fixture
def model(exported, tmp_path, monkeypatch):
    """The model of m.safetensors in an empty current folder."""
    monkeypatch.chdir(tmp_path)
    Path("m.safetensors").write_bytes(exported.read_bytes())
    return prnn.load("m.safetensors")


def test_from_training_to_an_exported_model(printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, second, *files = lines = printed(f"--config=digits {RUN}").splitlines()
    result = json.loads(Path("runs/digits/result.json").read_text())
    nats = result["test"]["nats"]
    assert first.startswith(f"test, step 2: {nats:.3f} ± ")
    assert second.startswith(f"independent pixels: {result['independent_pixels']['nats']:.3f} ± ")
    assert "runs/digits/result.json" in files and all(Path(file).exists() for file in files)

    run = "--workdir=runs/digits"
    assert printed(f"evaluate {run}").splitlines() == [first]
    assert "8 samples" in printed(f"sample {run} --n=8 --out=drawn.npz")
    assert "2 completions" in printed(f"complete {run} --n=2 --out=done.npz")
    printed(f"export {run}")
    model = "--workdir=model.safetensors"
    assert "8 images" in printed(f"compress {run} --images=drawn.npz")
    assert "8 images" in printed("info images.prnn")
    printed(f"decompress images.prnn {model} --out=back.npz")
    np.testing.assert_array_equal(arrays("back.npz")["images"], arrays("drawn.npz")["images"])
    assert printed(f"train {run}").splitlines() == lines  # Without --config it goes on, if not far.


@pytest.mark.slow
def test_data_that_have_moved(printed, tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    np.savez("images.npz", train=images[:20], validation=images[20:30], test=images[30:])
    printed(f"--config=digits --config.data.name=images.npz --workdir=run {RUN}")
    expected = printed("evaluate --workdir=run"), printed("complete --workdir=run --n=2")
    Path("images.npz").rename("moved.npz")
    data = "--workdir=run --data_name=moved.npz"
    assert (printed(f"evaluate {data}"), printed(f"complete --n=2 {data}")) == expected


def test_sample(printed, model):
    printed("sample --workdir=m.safetensors --n=5 --seed=7 --out=new/samples.npz")
    expected = model.sample(jax.random.key(7), 5)
    np.testing.assert_array_equal(arrays("new/samples.npz")["images"], expected)
    out = printed("sample --workdir=m.safetensors --n=5 --seed=7")
    nats = -float(model.log_prob(expected).mean())
    assert f"{nats:.2f} nats" in out and f"{nats / 20 / math.log(2):.4f} bits/dim" in out
    np.testing.assert_array_equal(picture("samples.png"), pictures.grid(expected, 3))
    out = printed("sample --workdir=m.safetensors --n=2 --size=2x5 --out=wide.npz")
    wide = model.sample(jax.random.key(0), 2, size=(2, 5))
    assert f"{model.bits_per_dim(wide).mean():.4f} bits/dim" in out
    np.testing.assert_array_equal(arrays("wide.npz")["images"], wide)
    printed("sample --workdir=m.safetensors --n=5 --temperature=0 --out=cold.npz")
    cold = arrays("cold.npz")["images"]
    assert (cold == cold[:1]).all() and (cold != expected).any()


def test_complete_own_images(printed, cli, model, images):
    np.save("own.npy", images)
    own = "complete --workdir=m.safetensors --images=own.npy --seed=7"
    expected = model.complete(jax.random.key(7), images, TOP)
    out = printed(f"{own} --out=done.npz")
    np.testing.assert_array_equal(arrays("done.npz")["images"], expected.images)
    assert f"{-expected.log_evidence.mean():.2f} nats" in out
    printed(f"{own} --n=3")  # Spread over all.
    three = images[[0, 19, 39]]
    completed = model.complete(jax.random.key(7), three, TOP).images
    drawn = [three, np.broadcast_to(TOP[..., None], (3, 4, 5, 1)), completed]
    np.testing.assert_array_equal(picture("completions.png"), pictures.completions(*drawn, 3))

    Image.fromarray(np.eye(4, 5, dtype=bool)).save("mask.png")
    status, _, err = cli(f"{own} --known=mask.png --n=1 --out=done")
    assert status == 0 and "--particles" in err  # Known values come after unknown ones.
    diagonal = np.arange(4)
    known = picture("done/0.png")[diagonal, diagonal]
    np.testing.assert_array_equal(known, images[0, diagonal, diagonal, 0])


def test_scores_of_own_images(printed, model, images):
    pictures.write_images(images, 3, "own")
    words = "evaluate --workdir=m.safetensors --images=own --out=own/scores.npz"
    out = printed(f"{words} --per_value --pixel_map=map.png")
    scores = arrays("own/scores.npz")
    expected = -np.asarray(model.log_prob(images, per_value=True))
    nats = expected.sum(axis=(1, 2, 3))
    assert scores.keys() == {"nats", "bits_per_dim", "names", "nats_per_value"}
    np.testing.assert_allclose(scores["nats"], nats, rtol=1e-5)
    np.testing.assert_allclose(scores["bits_per_dim"], nats / 20 / math.log(2), rtol=1e-5)
    np.testing.assert_allclose(scores["nats_per_value"], expected, rtol=1e-4, atol=1e-6)
    assert scores["names"].tolist() == sorted(path.name for path in Path("own").glob("*.png"))
    assert out.startswith(f"own: {nats.mean():.3f} ± {nats.std(ddof=1) / 40**0.5:.3f} nats, ")
    shown = data.evenly_spaced(40, 16)
    drawn, *_ = pictures.pixel_map(images[shown], expected[shown].sum(-1), 3)
    np.testing.assert_array_equal(picture("map.png"), drawn)

    printed(words)  # Scores may lie beside the images, and are written anew.
    assert "nats_per_value" not in arrays("own/scores.npz")
    np.savez("own.npz", a=images[:7], test=images[7:])
    out = printed("evaluate --workdir=m.safetensors --images=own.npz --split=test --json")
    values = json.loads(out)
    assert values["images"] == 33 and values["nats"] == pytest.approx(nats[7:].mean(), rel=1e-5)
    np.save("one.npy", images[:1])
    values = json.loads(printed("evaluate --workdir=m.safetensors --images=one.npy --json"))
    assert "standard_error" not in values


def test_a_folder_comes_back_with_its_names(printed, cli, model, images):
    names = [f"{'dogs' if i % 2 else 'cats'}/{i:02}.png" for i in range(40)]
    pictures.write_images(images, 3, "pets", names=names)
    printed("compress --workdir=m.safetensors --images=pets --out=pets.prnn")
    assert [line for line in printed("info pets.prnn").splitlines() if line.endswith("01.png")]
    back = "decompress --workdir=m.safetensors pets.prnn"
    printed(f"{back} --out=back")
    for name in names:
        np.testing.assert_array_equal(picture(Path("back", name)), picture(Path("pets", name)))
    printed(f"{back} --out=back.npz")
    assert arrays("back.npz")["names"].tolist() == sorted(names)

    data = bytearray(Path("pets.prnn").read_bytes())
    data[-40] ^= 1
    Path("pets.prnn").write_bytes(data)
    assert cli(f"{back} --out=rest.npz")[0] == 2 and not Path("rest.npz").exists()
    assert cli("info pets.prnn")[0] == 2
    status, _, err = cli(f"{back} --out=rest.npz --skip_damaged")
    assert status == 0 and err
    assert len(arrays("rest.npz")["images"]) < 40


def test_pictures_of_several_sizes(printed, cli, model):
    """Scores, maps, files and completions, of pictures as grids of parts of at most 8 x 8."""
    rng, model.part = np.random.default_rng(0), 8
    sizes = {"a.png": (3, 17), "b/c.png": (9, 8), "b/d.png": (3, 17)}
    own = [rng.integers(0, 3, (*size, 1), np.uint8) for size in sizes.values()]
    pictures.write_images(own, 3, "own", names=[*sizes])
    words = "--workdir=m.safetensors --images=own --part=8"
    out = printed(f"evaluate {words} --per_image --out=s.npz --pixel_map=map.png").splitlines()
    nats = [-float(model.log_prob(image[None])[0]) for image in own]
    bits = sum(nats) / sum(image.size for image in own) / math.log(2)
    assert out[0].startswith(f"own: {np.mean(nats):.3f} ± ") and f"{bits:.4f} ± " in out[0]
    assert out[2].startswith(f"b/c.png: 9x8, {nats[1]:.3f} nats, ")
    np.testing.assert_allclose(arrays("s.npz")["nats"], nats, rtol=1e-5)
    np.testing.assert_allclose(arrays("s.npz")["bits_per_dim"][1], nats[1] / 72 / math.log(2))
    maps = [-np.asarray(model.log_prob(x[None], per_value=True))[0].sum(-1) for x in own]
    np.testing.assert_array_equal(picture("map.png"), pictures.pixel_map(own, maps, 3)[0])
    assert "--per_value" in cli(f"evaluate {words} --out=s.npz --per_value")[2]

    printed(f"compress {words} --out=own.prnn")
    assert "3 images of 2 sizes" in printed("info own.prnn")
    back = "decompress --workdir=m.safetensors own.prnn"
    assert "2 sizes" in cli(back)[2]
    printed(f"{back} --out=back")
    printed(f"{back} --out=back.png")
    for name, image in zip(sizes, own, strict=True):
        np.testing.assert_array_equal(picture(Path("back", name)), image[..., 0])

    known = np.ones((9, 8), np.uint8)
    known[2:4, 3:5] = 0
    Image.fromarray(255 * known).save("known.png")
    words = "complete --workdir=m.safetensors --images=own/b/c.png --part=8 --out=done.npz"
    printed(f"{words} --known=known.png --particles=4")
    changed = arrays("done.npz")["images"][0] != own[1]
    assert not changed[known == 1].any()
    assert "--known" in cli(f"{words.replace('b/c', 'a')} --known=known.png")[2]


def test_what_fails_leaves_the_file_as_it_was(cli, model, images):
    np.save("own.npy", images + 1)
    Path("own.prnn").write_text("precious")
    assert cli("compress --workdir=m.safetensors --images=own.npy --out=own.prnn")[0] == 2
    names = {path.name for path in Path().iterdir()}
    assert names == {"m.safetensors", "own.npy", "own.prnn"}
    assert Path("own.prnn").read_text() == "precious"


def test_classes(printed, tmp_path, monkeypatch, images):
    monkeypatch.chdir(tmp_path)
    model = tiny_model(image_shape=(4, 5, 1), num_classes=3, class_names=NAMES)
    model.save("c.safetensors")
    for label in ("oak", "2"):
        printed(f"sample --workdir=c.safetensors --n=3 --class={label} --out={label}.npz")
        expected = model.sample(jax.random.key(0), 3, ["oak"] * 3)
        np.testing.assert_array_equal(arrays(f"{label}.npz")["images"], expected)
    printed("sample --workdir=c.safetensors --n=6 --out=rows.npz")
    expected = model.sample(jax.random.key(0), 6, [0, 0, 1, 1, 2, 2])
    np.testing.assert_array_equal(arrays("rows.npz")["images"], expected)
    assert arrays("rows.npz")["labels"].tolist() == ["ash"] * 2 + ["elm"] * 2 + ["oak"] * 2
    printed("compress --workdir=c.safetensors --images=rows.npz --out=rows.prnn")
    labels = np.array(["oak", "elm"])[np.arange(40) % 2]
    np.savez("own.npz", images=images, labels=labels)
    printed("compress --workdir=c.safetensors --images=own.npz")
    printed("decompress --workdir=c.safetensors images.prnn --out=back.npz")
    assert arrays("back.npz")["labels"].tolist() == labels.tolist()


def test_images_without_a_class(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny_model(image_shape=(4, 5, 1), num_classes=3, class_names=NAMES, seed=9)
    model.save("c.safetensors")
    images = np.random.default_rng(0).integers(0, 3, (9, 4, 5, 1)).astype(np.uint8)
    nats = -np.stack([model.log_prob(images, name) for name in NAMES])
    best = np.array(NAMES)[nats.argmin(0)]
    assert len(set(best)) == 3 and model.classify(images).tolist() == best.tolist()
    np.save("own.npy", images)
    for flag, expected in (("", nats.min(0)), ("--class=elm", nats[1]), ("--class=2", nats[2])):
        words = f"evaluate --workdir=c.safetensors --images=own.npy --out=s.npz {flag}"
        status, _, err = cli(words)
        assert status == 0 and (f"{(best == 'ash').sum()} of ash" in err) == (not flag)
        np.testing.assert_allclose(arrays("s.npz")["nats"], expected, rtol=1e-6)
    assert cli("compress --workdir=c.safetensors --images=own.npy --class=oak")[0] == 0
    assert cli("decompress images.prnn --workdir=c.safetensors --out=back.npz")[0] == 0
    assert arrays("back.npz")["labels"].tolist() == ["oak"] * 9
    with pytest.raises(prnn.UserError, match="class"):
        tiny_model().classify(images)


def test_vectors(printed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = tiny_model(image_shape=(4, 5, 1), condition_vector=2)
    model.save("v.safetensors")
    vectors = np.random.default_rng(0).normal(size=(4, 2))
    np.savez("condition.npz", condition=vectors)
    np.save("condition.npy", vectors)
    sample = "sample --workdir=v.safetensors --out=samples.npz --condition"
    printed(f"{sample}=condition.npz")
    images = arrays("samples.npz")["images"]
    np.testing.assert_array_equal(images, model.sample(jax.random.key(0), 4, vectors))
    printed(f"{sample}=condition.npy --n=3")
    samples = arrays("samples.npz")
    np.testing.assert_array_equal(samples["images"], images[:3])
    np.testing.assert_array_equal(samples["condition"], vectors[:3])


PLUGIN = """
import functools

from pixel_rnn_jax.model.layers import BODIES, Layer, MaskedConv, Stack

class Pixelwise(Layer):
    def setup(self):
        self.conv = MaskedConv(2 * self.features, self.features, self.mask_groups, **self.dtypes)

    def __call__(self, x, condition=None):
        return self.conv(x)

BODIES["pixelwise"] = functools.partial(Stack, layer=Pixelwise)
"""


def test_a_plugin_registers_a_layer_of_one_method(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(PLUGIN)
    status, _, err = cli("--config=digits:pixelwise --config.data.name=no.npy --plugin=mine.py")
    assert status == 2 and "no.npy" in err
    tiny_model("pixelwise").save("own.safetensors")
    # As in a new process, which knows the architecture by the flag alone.
    monkeypatch.delitem(BODIES, "pixelwise")
    status, _, err = cli("sample --model=own.safetensors --n=1 --out=one.png")
    assert status == 2 and "pixelwise" in err
    status, _, err = cli("sample --model=own.safetensors --n=1 --out=one.png --plugin=mine.py")
    assert status == 0 and Path("one.png").exists(), err
    monkeypatch.delitem(BODIES, "pixelwise")
