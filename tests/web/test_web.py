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
from helpers.programs import ROOT
from helpers.random_models import all_images, posterior, tiny_model
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import compression, loop
from pixel_rnn_jax.system.files import BUNDLED

NODE, CHROMIUM, WEB = shutil.which("node"), shutil.which("chromium"), ROOT / "web"
GOLDENS = ROOT / "tests" / "codec" / "files"
BINARY = dict(levels=2, shape=(6, 5, 1), layers=2, first_kernel=5)
COLOUR = dict(levels=5, shape=(4, 5, 3), layers=2, features=5, num_classes=3)
MIXTURE = COLOUR | dict(levels=100, output="discretized_logistic_mixture", mixtures=3)
SCRIPTS = "model", "images", "codec", "worker"
KERNEL = dict(kernel=5)
LAYERS = dict(pixel_cnn=KERNEL, row_lstm=KERNEL, diagonal_bilstm={}, linear_rnn={})
LARGE = "mnist_pixel_cnn", "mnist_row_lstm", "mnist_diagonal_1x32", "mnist_linear_rnn", "cifar10"
RANDOM = [
    (name, sizes | fields) for name, fields in LAYERS.items() for sizes in (BINARY, COLOUR, MIXTURE)
]
SLOW = [pytest.param(name, marks=pytest.mark.slow) for name in LARGE]
REFUSED = {"scales_logistic": "scales=8,32", "coupled_16_bits": "output=coupled"}
pytestmark = pytest.mark.skipif(not NODE, reason="needs Node")


def node(*words, status=0, **given):
    """Runs Node, and returns what it prints, or its one line of error."""
    done = subprocess.run([NODE, *words], input=json.dumps(given), capture_output=True, text=True)
    assert done.returncode == status and done.stderr.count("\n") == status, done.stderr
    return done.stderr if status else json.loads(done.stdout)


def in_node(program, path, **given):
    """Runs a program that fills `answers` from `given`, with the model of a path."""
    sources = "".join((WEB / f"{name}.js").read_text() for name in SCRIPTS)
    start = f"""import {{ readFileSync }} from "node:fs"; {sources} const answers = [];
        const model = await readModel(Uint8Array.from(readFileSync("{path}")).buffer);
        const given = JSON.parse(readFileSync(0)); let seed = 1;
        Math.random = () => (seed = (seed * 16807) % 2147483647) / 2147483647;"""
    program = f"{start}{program}; console.log(JSON.stringify(answers))"
    return node("--input-type=module", "-e", program, **given)


@pytest.mark.parametrize("case", [*RANDOM, "digits", *SLOW], ids=str)
def test_log_prob_is_the_packages(case, tmp_path, x64):
    model = prnn.load(case) if isinstance(case, str) else small_model(case[0], **case[1])
    images, classes = random_images(model, 3), [0, 1, 2] if model.config.num_classes else None
    if isinstance(case, str):
        images = np.load(BUNDLED / case / "slice.npz")["images"][:4]
    config = dataclasses.replace(model.config, dtype="float64")
    exact = dataclasses.replace(model.pixel_rnn, config=config)
    exact = prnn.ImageModel(exact, jax.tree.map(np.float64, model.params))
    model.save(path := tmp_path / "x.safetensors")
    given = {"images": images.tolist(), "classes": classes or []}
    (tmp_path / "x.json").write_text(json.dumps(given))
    found = node(WEB / "cli.mjs", "log_prob", path, tmp_path / "x.json")
    np.testing.assert_allclose(found, exact.log_prob(images, classes), rtol=1e-9)


@pytest.mark.parametrize("name", sorted(path.stem for path in GOLDENS.glob("*.prnn")))
def test_files(name):
    words = "decode", *(GOLDENS / f"{name}.{kind}" for kind in ("safetensors", "prnn"))
    found = node(WEB / "cli.mjs", *words, status=int(name in REFUSED))
    if name in REFUSED:
        assert REFUSED[name] in found
        return
    stored = np.load(GOLDENS / f"{name}.npz")["images"]
    assert found["sizes"] == [[*stored.shape[1:3]]] * len(stored)
    np.testing.assert_array_equal(found["values"], stored.ravel())


@pytest.mark.parametrize("options", [COLOUR, pytest.param(MIXTURE, marks=pytest.mark.slow)])
def test_another_machine_decodes_blocks_with_classes(options, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "MARGIN", 1e-3)  # More corrections than there would be.
    monkeypatch.setattr(compression, "BLOCK_BYTES", 1)
    model, classes = small_model("linear_rnn", **options), np.arange(73) % 3
    model.part = 8  # The last image has 2 x 3 parts.
    model.save(path := tmp_path / "x.safetensors")
    images = [*random_images(model, 72), random_images(model, 1, size=(10, 17))[0]]
    content = model.compress(images, [*classes])
    program = """const bias = model.arrays["scale_0/logits/bias"]; let last;
        if (model.levels === 5) for (const i of bias.keys()) bias[i] += 9e-4 * Math.sin(i);
        for (last of decode(model, Uint8Array.from(given.file)));
        answers.push(last.classes, ...last.images.map((image) => [...image]));"""
    found = in_node(program, path, file=[*content])
    np.testing.assert_array_equal(found[0], classes)
    for values, image in zip(found[1:], images, strict=True):
        np.testing.assert_array_equal(values, image.ravel())


@pytest.mark.parametrize("name", ["pixel_cnn_8x8", "diagonal_softmax"])
def test_damaged_files_are_refused(name, tmp_path):
    path, file = (GOLDENS / f"{name}.{kind}" for kind in ("safetensors", "prnn"))
    data, random = file.read_bytes(), np.random.default_rng(0)
    damaged = [data + b"0"]
    for at in random.integers(len(data), size=50).tolist():
        flipped = bytes([data[at] ^ int(random.integers(1, 256))])
        damaged += [data[:at] + flipped + data[at + 1 :], data[:at]]
    program = """for (const file of given.files) try {
        if (answers.length === 102) model.arrays["scale_0/logits/bias"][0] += 1; // Another model.
        for (const _ of decode(model, Uint8Array.from(file))); answers.push("");
    } catch (error) { answers.push(error.message); }"""
    answers = in_node(program, path, files=[[*content] for content in (data, *damaged, data)])
    assert len(answers) == 103 and not answers[0] and all(answers[1:])
    (tmp_path / "file").write_bytes(damaged[1])
    (tmp_path / "model").write_bytes(path.read_bytes()[:-1] + b"?")
    for paths in (path, tmp_path / "file"), (tmp_path / "model", file):
        assert "damaged" in node(WEB / "cli.mjs", "decode", *paths, status=1)


def test_a_model_that_is_not_computed_is_named():
    path = GOLDENS / "diagonal_softmax.safetensors"
    forged = [
        ("dtype", '"float32"', '"float16"'),
        ("input", '"scalar"', '"custom"'),
        ("residual", 'residual": true', 'residual":false'),
        ("skip", 'skip": true', 'skip":false'),
        ("condition_vector", 'vector": 0', 'vector": 2'),
        ("condition_map", 'map": 0', 'map": 2'),
        ("version", 'version": 1', 'version": 9'),
        ("sizes", 'layers": 1', 'layers": 0'),
        ("sizes", '_kernel": 3', '_kernel": 4'),
        ("sizes", "[16, 16, 1]", "[16,0.5, 1]"),
        ("sizes", "[16, 16, 1]", "[16,1e9,1] "),
    ]
    both = [[text.replace('"', r"\"").encode() for text in texts] for _, *texts in forged]
    files = [[*path.read_bytes().replace(*texts)] for texts in both]
    program = """Object.defineProperty(globalThis, "crypto", { value: undefined }); // No digest.
        for (const file of given.files)
            await readModel(Uint8Array.from(file).buffer).catch((e) => answers.push(e.message));"""
    found = in_node(program, path, files=files)
    assert all(name in text for (name, *_), text in zip(forged, found, strict=True))


@pytest.mark.parametrize("words", [("constructor", "a", "b"), ("decode", "/dev/zero", "/dev/zero")])
def test_words_that_are_no_command_or_file(words):
    assert any(text in node(WEB / "cli.mjs", *words, status=1) for text in ("usage", "no file"))


def test_levels_and_copies_are_as_frequent_as_their_chances():
    """Under uniform numbers from a grid, and levels at temperature 0.5."""
    chances = np.array([0.05, 0.1, 0.35, 0.2, 0.3])
    program = """const softmax = outputsOf({ output: "softmax" }, 5), { logs } = given;
        const each = (draw) => Array.from({ length: 1000 }, (_, i) => {
            Math.random = () => (i + 0.5) / 1000;
            return draw();
        });
        answers.push(each(() => ancestorsOf(logs)), each(() => drawn(softmax, 5, logs, 0.5)));"""
    path, logs = GOLDENS / "pixel_cnn_8x8.safetensors", np.log(chances) - 2
    ancestors, levels = map(np.array, in_node(program, path, logs=logs.tolist()))
    copies = (ancestors[..., None] == np.arange(5)).sum(1)
    np.testing.assert_allclose(copies.mean(0), 5 * chances, atol=2e-3)
    assert (abs(copies - 5 * chances) < 1).all()
    expected = chances**2 / (chances**2).sum()
    np.testing.assert_allclose(np.bincount(levels) / 1000, expected, atol=2e-3)


def test_a_job_ends_when_the_next_begins():
    program = """globalThis.onmessage = null;
        globalThis.postMessage = ({ job }) => answers.push(job);
        performance.now = () => Infinity; // Every pixel is shown.
        work();
        await onmessage({ data: [1, "open", Uint8Array.from(given.file).buffer] });
        const image = Array(64).fill(0), task = ["complete", [8, 8], image, image, 2];
        await Promise.all([2, 3].map((job) => onmessage({ data: [job, ...task] })));"""
    path = GOLDENS / "pixel_cnn_8x8.safetensors"
    jobs = in_node(program, path, file=[*path.read_bytes()])
    assert jobs.count(2) == 1 and jobs.count(3) > 50


def completions(path, shape, runs):
    """A model, an image, the known values, and of each run the evidence and 16 flat images."""
    model = tiny_model("diagonal_bilstm", shape, 2, features=6, head_features=8)
    params = jax.tree.map(lambda x: 2 * x * (x.ndim > 1), model.params)  # Values matter more.
    model = prnn.ImageModel(model.pixel_rnn, params)
    model.save(path)
    image, known = np.resize([1, 0, 0], shape), np.resize([False, True, False], shape)
    program = """for (let run = 0, last; run < given.runs; run++) {
        for (last of complete(model, given.image, given.known, 16));
        answers.push([last.evidence, ...last.images.flatMap((x) => [...x])]);
    }"""
    given = dict(image=image.ravel().tolist(), known=known.ravel().tolist(), runs=runs)
    found = np.array(in_node(program, path, **given))
    return model, image, known, found[:, 0], found[:, 1:].reshape(runs, 16, -1)


def test_resampling_makes_the_evidence_less_uncertain(tmp_path):
    *_, evidence, _ = completions(tmp_path / "x.safetensors", (8, 8, 1), 32)
    assert evidence.std() < 1.5  # Without resampling 2.3.


def test_particles_have_the_exact_distribution(tmp_path):
    """Also where known values come late: p(known) times the share of an image, on average."""
    model, *given, evidence, images = completions(tmp_path / "x.safetensors", (2, 3, 1), 250)
    exact, log_evidence = posterior(model, *given)
    same = images[:, :, None] == all_images((2, 3, 1), 2).reshape(-1, 6)
    shares = np.exp(evidence - log_evidence) @ same.all(-1).mean(1) / 250
    np.testing.assert_allclose(shares, exact, atol=0.03)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
def test_in_a_browser(tmp_path):
    """Draws, completes, scores, hides by key and mouse, and opens files; also from file:."""
    playwright = pytest.importorskip("playwright.sync_api")
    shutil.copytree(WEB, site := tmp_path / "site")
    shutil.copytree(WEB, site / "bare")  # Without models.
    for name in "mnist_diagonal_1x32", "digits", "cifar10":
        shutil.copy(BUNDLED / name / "model.safetensors", site / f"{name}.safetensors")
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=site)
    (damaged := tmp_path / "damaged.safetensors").write_bytes(b"x" * 99)
    Image.new("RGB", (12, 9)).save(picture := tmp_path / "picture.png")
    Image.new("RGB", (512, 20)).save(wide := tmp_path / "wide.png")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    address, errors, urls = f"http://127.0.0.1:{server.server_port}/", [], []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with server, playwright.sync_playwright() as session:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        browser = session.chromium.launch(executable_path=CHROMIUM, args=options)
        tab = browser.new_page(viewport={"width": 390, "height": 844})  # A phone.
        tab.set_default_timeout(120_000)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("request", lambda request: urls.append(request.url))

        def do(action, *words, says):
            tab.evaluate("document.querySelector('#status')?.replaceChildren()")
            action(*words)
            tab.locator("#status", has_text=says).wait_for()

        do(tab.goto, address + "bare/", says="Open a model")
        tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        for url in address, f"file://{site}/index.html":
            do(tab.goto, url, says="16 images" if url == address else "Open a model")
            tab.context.set_offline(True)
            for kind, says in ("safetensors", "16 images"), ("prnn", "5 images"):
                do(tab.set_input_files, "#file", GOLDENS / f"diagonal_softmax.{kind}", says=says)
            do(tab.set_input_files, "#file", GOLDENS / "pixel_cnn_8x8.prnn", says="another model")
            assert "does not name" in tab.inner_text("#about")
            chosen = tab.evaluate("ui.models.value")
            do(tab.set_input_files, "#file", damaged, says="damaged")
            assert tab.evaluate("ui.models.value") == chosen
            do(tab.set_input_files, "#file", picture, says="picture.png: 9×12")
            do(tab.click, "#complete", says="log p -")
            tab.click("#tiles button >> nth=3")
            do(tab.click, "#score", says="bits/dim")
            tab.press("#canvas", "ArrowDown")
            tab.press("#canvas", "Space")
            tab.drag_and_drop("#canvas", "#canvas", target_position={"x": 9, "y": 9})
            do(tab.click, "#score", says="whole images")
            assert tab.evaluate("known.filter((x) => !x).length > 3 && innerWidth") == 390
            tab.fill("#size", "5x30")
            tab.press("#size", "Enter")
            do(tab.click, "#draw", says="16 images")
            assert tab.evaluate("image.length") == 150
            do(tab.set_input_files, "#file", wide, says="scaled from 20×512 to 10×256")
            do(tab.click, "#score", says="bits/dim")
        browser.close()
        server.shutdown()
    assert all(url.startswith((address, "file:", "blob:", "data:")) for url in urls) and not errors
