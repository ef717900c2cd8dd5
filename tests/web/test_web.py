"""The second implementation, in JavaScript, has the package's numbers and reads its files."""

import dataclasses
import json
import shutil
import subprocess

import jax
import numpy as np
import pytest
from helpers.codec_streams import random_images, small_model
from helpers.exported_network import ExportedNetwork
from helpers.programs import ROOT
from helpers.random_models import ARCHITECTURES, all_images, posterior, soft_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import compression, quantise
from pixel_rnn_jax.system import files

NODE, CHROMIUM = shutil.which("node"), shutil.which("chromium")
WEB, GOLDENS = ROOT / "web", ROOT / "tests" / "codec" / "files"
READS = [name for name in ARCHITECTURES if name != "gated_pixel_cnn"]
BUNDLED = "pixel_cnn", "row_lstm", "diagonal_1x32", "linear_rnn"
pytestmark = pytest.mark.skipif(not NODE, reason="needs Node")


def node(*words, status=0, text=None):
    """Runs Node; returns what it prints, or its one line of error."""
    done = subprocess.run([NODE, *words], input=text, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stderr
    if status:
        assert done.stderr.count("\n") == 1 and not done.stdout
        return done.stderr
    return json.loads(done.stdout)


def log_prob(path, images, classes, folder):
    given = {} if classes is None else {"classes": classes.tolist()}
    (folder / "images.json").write_text(json.dumps({"images": images.tolist(), **given}))
    return np.array(node(WEB / "cli.mjs", "log_prob", path, folder / "images.json"))


@pytest.mark.parametrize("architecture", READS)
@pytest.mark.parametrize(
    "options",
    [
        dict(levels=2, shape=(6, 5, 1), layers=2, kernel=5, first_kernel=5),
        dict(levels=5, shape=(4, 5, 3), features=5, num_classes=3, residual=False),
        dict(levels=3, shape=(5, 4, 2), layers=2, skip=False),
    ],
    ids=["two levels", "classes", "no skip"],
)
def test_log_prob_of_every_architecture(architecture, options, tmp_path):
    model = small_model(architecture, **options)
    model.save(path := tmp_path / "model.safetensors")
    images = random_images(model, 3)
    classes = np.arange(3) if model.config.num_classes else None
    network, expected = ExportedNetwork(path), []
    for number, image in enumerate(images):
        outputs = network.outputs(image, None if classes is None else classes[number])
        logits = outputs if model.levels > 2 else np.concatenate([0 * outputs, outputs], -1)
        chosen = np.take_along_axis(logits, image[..., None], -1)[..., 0]
        expected.append((chosen - np.log(np.exp(logits).sum(-1))).sum())
    np.testing.assert_allclose(log_prob(path, images, classes, tmp_path), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "name",
    ["digits", *(pytest.param(f"mnist_{name}", marks=pytest.mark.slow) for name in BUNDLED)],
)
def test_log_prob_of_bundled_models(name, tmp_path):
    with jax.enable_x64(True):
        model, path = prnn.load(name), files.BUNDLED / name
        config = dataclasses.replace(model.config, dtype="float64")
        exact = dataclasses.replace(model.pixel_rnn, config=config)
        params = jax.tree.map(np.float64, model.params)
        images = np.load(path / "slice.npz")["images"]
        expected = np.asarray(prnn.ImageModel(exact, params).log_prob(images))
    assert expected.dtype == np.float64
    found = log_prob(path / "model.safetensors", images, None, tmp_path)
    np.testing.assert_allclose(found, expected, rtol=1e-9)


def decoded(model, file):
    found = node(WEB / "cli.mjs", "decode", model, file)
    return np.reshape(found["values"], found["shape"]), found.get("classes")


@pytest.mark.parametrize("name", [path.stem for path in sorted(GOLDENS.glob("*.prnn"))])
def test_golden_files(name):
    model, file = GOLDENS / f"{name}.safetensors", GOLDENS / f"{name}.prnn"
    if "softmax" not in name and name != "pixel_cnn_8x8":
        word = "scales=8,32" if "scales" in name else "output="
        assert word in node(WEB / "cli.mjs", "decode", model, file, status=1)
        return
    with np.load(GOLDENS / f"{name}.npz") as stored:
        np.testing.assert_array_equal(decoded(model, file)[0], stored["images"])


def test_classes_blocks_and_corrections(tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "MARGIN", 1e-4)  # More corrections than there would be.
    monkeypatch.setattr(compression, "BLOCK_BYTES", 1)
    model = small_model("linear_rnn", (3, 4, 2), levels=5, num_classes=3)
    images, classes = random_images(model, 70), np.arange(70) % 3
    model.save(tmp_path / "model.safetensors")
    (tmp_path / "x.prnn").write_bytes(model.compress(images, classes))
    values, labels = decoded(tmp_path / "model.safetensors", tmp_path / "x.prnn")
    np.testing.assert_array_equal(values, images)
    assert labels == classes.tolist()


IN_NODE = f"""
import {{ readFileSync }} from "node:fs";
import {{ decode }} from "{WEB}/codec.js";
import {{ Model }} from "{WEB}/model.js";
const {{ path, ...given }} = JSON.parse(readFileSync(0, "utf8"));
const model = await Model.read(Uint8Array.from(readFileSync(path)).buffer);
const answers = [];
"""


def in_node(program, path, **given):
    """Runs a program that fills `answers` from `given`."""
    text = json.dumps({"path": str(path), **given})
    program = f"{IN_NODE}{program}\nconsole.log(JSON.stringify(answers));"
    return node("--input-type=module", "-e", program, text=text)


@pytest.mark.parametrize("name", ["pixel_cnn_8x8", "diagonal_softmax"])
def test_damaged_files_are_refused(name, tmp_path):
    path, data = GOLDENS / f"{name}.safetensors", (GOLDENS / f"{name}.prnn").read_bytes()
    random, damaged = np.random.default_rng(0), []
    for end in random.integers(len(data), size=50).tolist():
        flipped = bytearray(data)
        flipped[end] ^= int(random.integers(1, 256))
        damaged += [bytes(flipped), data[:end]]
    program = """
    for (const file of given.files)
      try {
        for (const _ of decode(model, Uint8Array.from(file)));
        answers.push("");
      } catch (error) { answers.push(error.message); }
    """
    answers = in_node(program, path, files=[list(file) for file in [data, *damaged]])
    assert not answers[0] and all(answers[1:]) and len(answers) == 101
    (tmp_path / "x.prnn").write_bytes(damaged[0])
    assert answers[1] in node(WEB / "cli.mjs", "decode", path, tmp_path / "x.prnn", status=1)
    weights = bytearray(path.read_bytes())
    weights[-1] ^= 1
    (tmp_path / "x.safetensors").write_bytes(weights)
    words = WEB / "cli.mjs", "decode", tmp_path / "x.safetensors", GOLDENS / f"{name}.prnn"
    assert "damaged" in node(*words, status=1)


def test_particles_have_the_exact_distribution(tmp_path):
    """Also where known values come last: the mean of p(known) times the share of an image."""
    model = soft_model("pixel_cnn", (2, 3, 1), 2, first_kernel=3)
    model.save(tmp_path / "model.safetensors")
    image = np.array([0, 1, 1, 0, 1, 1]).reshape(2, 3, 1)
    known = np.array([False, True, False, False, True, True]).reshape(2, 3, 1)
    program = """
    const { image, known } = given;
    for (let run = 0; run < 2000; run++) {
      let last;
      for (last of model.complete(image, known, 8));
      answers.push(...last.images.map((x) => [Math.exp(last.evidence) / 16000, ...x]));
    }
    """
    listed = [image.ravel().tolist(), known.ravel().tolist()]
    found = in_node(program, tmp_path / "model.safetensors", image=listed[0], known=listed[1])
    shares, images = np.array(found)[:, 0], np.array(found)[:, 1:].astype(int)
    exact, log_evidence = posterior(model, image, known)
    for index, wanted in enumerate(all_images((2, 3, 1), 2).reshape(-1, 6)):
        joint = exact[index] * np.exp(log_evidence)
        assert shares[(images == wanted).all(1)].sum() == pytest.approx(
            joint, abs=6e-3 * np.exp(log_evidence)
        )
