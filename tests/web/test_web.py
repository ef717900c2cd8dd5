"""The second implementation, in JavaScript, has the package's numbers and reads its files."""

import dataclasses
import functools
import http.server
import json
import shutil
import subprocess
import threading

import jax
import numpy as np
import pytest
from helpers.codec_streams import random_images, small_model
from helpers.exported_network import ExportedNetwork
from helpers.programs import ROOT
from helpers.random_models import all_images, posterior, soft_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import compression, quantise
from pixel_rnn_jax.system.files import BUNDLED

NODE, CHROMIUM, WEB = shutil.which("node"), shutil.which("chromium"), ROOT / "web"
GOLDENS = ROOT / "tests" / "codec" / "files"
TWO_LEVELS = dict(levels=2, shape=(6, 5, 1), layers=2, kernel=5, first_kernel=5, skip=False)
COLOUR = dict(levels=5, shape=(4, 5, 3), features=5, num_classes=3, residual=False)
LARGE = "pixel_cnn", "row_lstm", "diagonal_1x32", "linear_rnn"
pytestmark = pytest.mark.skipif(not NODE, reason="needs Node")


def node(*words, status=0, **given):
    """Runs Node, and returns what it prints, or its one line of error."""
    done = subprocess.run([NODE, *words], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == status and done.stderr.count("\n") == status, done.stderr
    return done.stderr if status else json.loads(done.stdout)


def log_prob(path, images, **given):
    (file := path.parent / "x.json").write_text(json.dumps({"images": images.tolist(), **given}))
    return node(WEB / "cli.mjs", "log_prob", path, file)


def in_node(program, path, **given):
    """Runs a program that fills `answers` from `given`, with the model of a path."""
    start = f"""import {{ readFileSync }} from "node:fs"; import {{ decode }} from "{WEB}/codec.js";
        import {{ complete, readModel }} from "{WEB}/model.js";
        const model = await readModel(Uint8Array.from(readFileSync("{path}")).buffer);
        const given = JSON.parse(readFileSync(0)), answers = [];"""
    end = "\nconsole.log(JSON.stringify(answers));"
    return node("--input-type=module", "-e", start + program + end, **given)


@pytest.mark.parametrize("options", [TWO_LEVELS, COLOUR], ids=["two levels", "colour, classes"])
@pytest.mark.parametrize("architecture", ["pixel_cnn", "row_lstm", "diagonal_bilstm", "linear_rnn"])
def test_log_prob_of_random_models(architecture, options, tmp_path):
    model = small_model(architecture, **options)
    model.save(path := tmp_path / "x.safetensors")
    images, network, expected = random_images(model, 3), ExportedNetwork(path), []
    for label, image in enumerate(images):
        logits = network.outputs(image, label)
        logits = np.concatenate([0 * logits, logits], -1) if model.levels == 2 else logits
        chosen = np.take_along_axis(logits, image[..., None], -1)[..., 0]
        expected.append((chosen - np.log(np.exp(logits).sum(-1))).sum())
    given = {"classes": [0, 1, 2]} if model.config.num_classes else {}
    np.testing.assert_allclose(log_prob(path, images, **given), expected, rtol=1e-9)


@pytest.mark.parametrize(
    "name", ["digits", *(pytest.param(f"mnist_{x}", marks=pytest.mark.slow) for x in LARGE)]
)
def test_log_prob_of_bundled_models(name, tmp_path, x64):
    model, images = prnn.load(name), np.load(BUNDLED / name / "slice.npz")["images"]
    config = dataclasses.replace(model.config, dtype="float64")
    exact, params = dataclasses.replace(model.pixel_rnn, config=config), model.params
    expected = prnn.ImageModel(exact, jax.tree.map(np.float64, params)).log_prob(images)
    path = shutil.copy(BUNDLED / name / "model.safetensors", tmp_path)
    np.testing.assert_allclose(log_prob(tmp_path / path, images), expected, rtol=1e-9)


@pytest.mark.parametrize("name", [*(path.stem for path in GOLDENS.glob("*.prnn")), "classes"])
def test_files(name, tmp_path, monkeypatch):
    folder, classes = GOLDENS, None
    if name == "classes":
        monkeypatch.setattr(quantise, "MARGIN", 1e-4)  # More corrections than there would be.
        monkeypatch.setattr(compression, "BLOCK_BYTES", 1)
        model, folder, classes = small_model("linear_rnn", **COLOUR), tmp_path, [*range(3)] * 24
        model.save(folder / f"{name}.safetensors")
        np.savez(folder / f"{name}.npz", images=(images := random_images(model, 72)))
        (folder / f"{name}.prnn").write_bytes(model.compress(images, np.array(classes)))
    words = "decode", *(folder / f"{name}.{kind}" for kind in ("safetensors", "prnn"))
    if refused := {"sc": "scales=8,32", "co": "output=co", "ro": "output=di"}.get(name[:2]):
        assert refused in node(WEB / "cli.mjs", *words, status=1)
        return
    found, stored = node(WEB / "cli.mjs", *words), np.load(folder / f"{name}.npz")["images"]
    np.testing.assert_array_equal(np.reshape(found["values"], found["shape"]), stored)
    assert found.get("classes") == classes


@pytest.mark.parametrize("name", ["pixel_cnn_8x8", "diagonal_softmax"])
def test_damaged_files_are_refused(name, tmp_path):
    path, data = GOLDENS / f"{name}.safetensors", (GOLDENS / f"{name}.prnn").read_bytes()
    random, damaged = np.random.default_rng(0), []
    for at in random.integers(len(data), size=50).tolist():
        flipped = bytes([data[at] ^ int(random.integers(1, 256))])
        damaged += [data[:at] + flipped + data[at + 1 :], data[:at]]
    program = """for (const file of given.files) try {
        for (const _ of decode(model, Uint8Array.from(file))); answers.push("");
    } catch (error) { answers.push(error.message); }"""
    answers = in_node(program, path, files=[[*file] for file in (data, *damaged)])
    assert len(answers) == 101 and not answers[0] and all(answers[1:])
    (tmp_path / "x.prnn").write_bytes(damaged[0])
    assert answers[1] in node(WEB / "cli.mjs", "decode", path, tmp_path / "x.prnn", status=1)
    (tmp_path / "x").write_bytes(path.read_bytes()[:-1] + b"?")
    words = "decode", tmp_path / "x", GOLDENS / f"{name}.prnn"
    assert "model is damaged" in node(WEB / "cli.mjs", *words, status=1)


def test_particles_have_the_exact_distribution(tmp_path):
    """Also where known values come last: p(known) times the share of an image, on average."""
    model = soft_model("pixel_cnn", (2, 3, 1), 2, first_kernel=3)
    model.save(path := tmp_path / "x.safetensors")
    image, known = np.array([0, 1, 1, 0, 1, 1]), np.array([0, 1, 0, 0, 1, 1], bool)
    program = """let seed = 1;
    Math.random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;
    for (let run = 0; run < 1000; run++) {
        for (var last of complete(model, given.image, given.known, 8));
        answers.push(...last.images.map((x) => [Math.exp(last.evidence) / 8000, ...x]));
    }"""
    found = np.array(in_node(program, path, image=image.tolist(), known=known.tolist()))
    exact, log_evidence = posterior(model, image.reshape(2, 3, 1), known.reshape(2, 3, 1))
    same = (found[:, None, 1:] == all_images((2, 3, 1), 2).reshape(-1, 6)).all(-1)
    np.testing.assert_allclose(found[:, 0] @ same / np.exp(log_evidence), exact, atol=0.015)


@pytest.fixture
def address(tmp_path):
    """The page's address, without its last part, in a folder of the built site."""
    shutil.copytree(WEB, site := tmp_path / "site")
    for name in "digits", "mnist_diagonal_1x32":
        shutil.copy(BUNDLED / name / "model.safetensors", site / f"{name}.safetensors")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
def test_in_a_browser(address, tmp_path):
    """Draws, hides, completes, scores and opens files, also from file:, without any error."""
    playwright = pytest.importorskip("playwright.sync_api")
    (tmp_path / "x.prnn").write_bytes(b"damaged")
    errors, hosts = [], set()
    with playwright.sync_playwright() as session:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = session.chromium.launch(executable_path=CHROMIUM, args=options)
        tab = browser.new_page(viewport={"width": 390, "height": 844})  # A phone.
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: hosts.add(request.url.partition(":")[0]))

        def says(text):
            tab.locator("#status", has_text=text).wait_for()

        tab.goto(f"{address}/index.html")
        says("16 images in")
        tab.get_by_role("button", name="Complete").click()
        says("log p -")
        tab.locator("#canvas").focus()
        tab.keyboard.press("ArrowDown")
        tab.keyboard.press("Space")
        browser.close()
    assert not errors
