"""The page: its figures are the API's, and it works in a browser."""

import base64
import io
import re
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import app
import gradio_client
import jax
import numpy as np
import pytest
from helpers import programs
from PIL import Image
from play import Play

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import pictures

CHROMIUM = shutil.which("chromium")
NUMBER = r"-?\d[\d,]*(?:\.\d+)?"


@pytest.fixture(scope="module")
def play():
    return Play("digits")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    config = prnn.ModelConfig("pixel_cnn", 1, 4, num_classes=3, scales=(2, 4))
    path = tmp_path_factory.mktemp("model") / "digits"  # A file of one's own, by a bundled name.
    prnn.create(config, (4, 4, 3), levels=256).save(path)
    return Play(path)


def parts(html):
    """Returns the picture, the text and the numbers in it."""
    content = base64.b64decode(re.search(r'base64,([^"]+)"', html)[1])
    text = re.sub("<[^>]*>", "", html)
    numbers = [float(each.replace(",", "")) for each in re.findall(NUMBER, text)]
    assert re.search(r'alt="[^"]+', html) and "Save " in text
    return Image.open(io.BytesIO(content)), text, numbers


@pytest.mark.parametrize(
    "name, given", [("play", None), pytest.param("classes", 2, marks=pytest.mark.slow)]
)
def test_draws_what_the_api_draws_and_shows_it_in_order(name, given, request):
    play = request.getfixturevalue(name)
    samples, film = play.draw(4, 0.8, 7, given)
    condition = None if given is None else np.full(4, given)
    images = play.model.sample(jax.random.key(7), 4, condition, temperature=0.8)
    picture, _, (nats, bits) = parts(samples)
    np.testing.assert_array_equal(np.asarray(picture), pictures.grid(images, play.model.levels))
    assert nats == pytest.approx(-float(play.model.log_prob(images, condition).mean()), abs=0.01)
    assert bits == pytest.approx(float(play.model.bits_per_dim(images, condition).mean()), abs=1e-4)

    moving, _, _ = parts(film)
    blue = []
    for number in range(moving.n_frames):
        moving.seek(number)
        frame = np.asarray(moving.convert("RGB"), int)
        blue.append((abs(frame - pictures.UNKNOWN).max(-1) < 8).mean())
    assert blue[0] == 1 and blue[-1] == 0 and (np.diff(blue) <= 0).all()
    if name == "classes":  # A quarter of the pixels comes first, each the first of its block.
        moving.seek(next(i for i, share in enumerate(blue) if share <= 0.75))
        step = moving.height // 4
        first = np.asarray(moving.convert("RGB"), int)[::step, ::step]
        known = abs(first - pictures.UNKNOWN).max(-1) >= 8
        assert known[::2, ::2].all() and known.sum() == 4


def test_completes_what_is_painted(play):
    image, size = play.images[0], play.canvas(play.images[0], play.margin).shape[0]
    layer = np.zeros((size, size, 4), np.uint8)
    layer[size // 2 :] = (*pictures.UNKNOWN, 255)
    known = play.painted([layer])
    assert known[:4].all() and not known[4:].any()

    html = play.complete(image, {"layers": [layer]}, 2, 4, 3, None)
    images = np.stack([image] * 2)
    result = play.model.complete(jax.random.key(3), images, known[..., None], particles=4)
    picture, _, (count, *evidence, size, particles) = parts(html)
    np.testing.assert_array_equal(np.asarray(picture), pictures.grid(result.images, 17, 4))
    assert count == 32 and particles == 4
    np.testing.assert_allclose(evidence, result.log_evidence, atol=0.01)
    assert size == pytest.approx(float(result.effective_sample_size.min()), abs=0.06)


def test_shows_the_nats_of_values_and_the_place_of_an_image(play):
    _, _, (nats, bits, less, count, black, white) = parts(play.surprise(play.images[3], None))
    terms = -play.model.log_prob(play.images[3:4], per_value=True)[0, ..., 0]
    assert nats == pytest.approx(float(terms.sum()), abs=0.01) and black == 0
    assert white == pytest.approx(float(terms.max()), abs=0.01)
    assert bits == pytest.approx(float(play.model.bits_per_dim(play.images[3:4])[0]), abs=1e-4)
    assert count == len(play.images) - 1 and less == (play.nats < play.nats[3] - 1e-3).sum()


def test_a_guess_comes_before_the_nats(play):
    four = np.random.default_rng(3).permutation(len(play.nats))[:4]
    picture, text, numbers = parts(play.guess(3, None))
    np.testing.assert_array_equal(np.asarray(picture), pictures.grid(play.images[four], 17, 4))
    assert not numbers and play.others(2) == (play.guess(3, None), 3, None)
    for choice in range(1, 5):
        _, text, (most, *nats) = parts(play.guess(3, choice))
        np.testing.assert_allclose(nats, play.nats[four], atol=0.01)
        assert most == 1 + np.argmax(nats) and text.startswith("Right") == (choice == most)


def test_a_photo_is_scaled_and_its_ink_is_bright(play, tmp_path):
    ink = 255 - np.round(play.images[0].repeat(9, 0).repeat(9, 1) * (255 / 16))
    paper = np.pad(ink, ((0, 0), (40, 40), (0, 0)), constant_values=255).astype(np.uint8)
    Image.fromarray(paper.repeat(3, -1)).save(tmp_path / "ink.png")
    images, remark = play.read([tmp_path / "ink.png"])
    np.testing.assert_array_equal(images, play.images[:1])
    assert remark.startswith("ink.png") and "8x8, light and dark swapped" in remark


def test_compresses_files_and_shows_them(play, tmp_path):
    np.save(tmp_path / "x.npy", play.images[:5])
    Image.fromarray(play.images[5, ..., 0]).save(tmp_path / "x.png")
    out, html = play.compress([tmp_path / "x.npy", tmp_path / "x.png"], None)
    assert Path(out).read_bytes() == play.model.compress(play.images[:6])
    picture, _, (size, bits) = parts(html)
    np.testing.assert_array_equal(np.asarray(picture), pictures.grid(play.images[:6], 17))
    assert size == Path(out).stat().st_size and bits == round(8 * size / (6 * 64), 4)


def test_an_image_brings_its_class_or_it_is_found(play, classes, tmp_path):
    np.save(tmp_path / "x.npy", classes.images[:5])
    found = classes.model.classify(classes.images[:5])
    out, text = classes.compress([tmp_path / "x.npy"], None)
    stored = classes.model.decompress(Path(out).read_bytes(), return_condition=True)[1]
    np.testing.assert_array_equal(stored, found)
    assert f"{(found == found[0]).sum()} of class {found[0]}" in text
    assert classes.upload(tmp_path / "x.npy", None)[1] == found[0]
    assert classes.given(5, 0) == classes.condition[5] == 2
    assert classes.given(-1, 1) == 1 and play.given(5, None) is None
    _, text, _ = parts(classes.surprise(classes.images[5], 2))
    assert f"{classes.nats[5]:.2f} nats" in text


def test_what_does_not_fit_is_named(play, classes, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    np.save(tmp_path / "large.npy", np.zeros((1, 9, 9), np.uint8))
    for call, words in (
        (lambda: play.read([tmp_path / "bad.png"]), "bad.png"),
        (lambda: play.read([tmp_path / "large.npy"]), r"\[9, 9, 1\]"),
        (lambda: play.complete(play.images[0], {}, 4, 64, 0, None), "paint"),
        (lambda: play.compress(None, None), "file"),
        (lambda: classes.draw(2, 1.0, 0, 5), "condition|class"),
    ):
        with pytest.raises(prnn.UserError, match=words):
            call()


@pytest.fixture
def address(tmp_path):
    """The address of the page of a program of its own, which leaves no files."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, app.__file__, "--model=digits", f"--port={port}", "--no_browser"]
    (temporary := tmp_path / "temporary").mkdir()
    environment = programs.environment({"TMPDIR": str(temporary)})
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert f"127.0.0.1:{port}" in process.stdout.readline()
        yield f"http://127.0.0.1:{port}"
        assert len(list(temporary.iterdir())) == 1
        process.terminate()
        assert not process.stdout.read()  # Gradio would advise a public link.
    assert process.returncode == 0 and not list(temporary.iterdir())


@pytest.mark.filterwarnings("ignore")
def test_every_button_answers_as_the_model_does(address, play, tmp_path):
    """By the page's HTTP API; what cannot be is a sentence, and other web pages are refused."""
    client = gradio_client.Client(address, verbose=False, download_files=tmp_path)

    def press(name, *values):
        return client.predict(*values, api_name=f"/{name}")

    def upload(path):
        return gradio_client.handle_file(path)

    np.save(tmp_path / "x.npy", play.images[:3])
    np.save(tmp_path / "scalar.npy", 3)
    file, _ = press("compress", [upload(tmp_path / "x.npy")])
    assert Path(file).read_bytes() == play.model.compress(play.images[:3])
    assert press("draw", 3, 0.5, 7) == play.draw(3, 0.5, 7, None)
    layer = np.tile(np.uint8([*pictures.UNKNOWN, 255]), (100, 100, 1))
    Image.fromarray(layer).save(tmp_path / "blue.png")
    painted = {"background": None, "layers": [upload(tmp_path / "blue.png")], "composite": None}
    completed = play.complete(play.images[0], {"layers": [layer]}, 2, 4, 3, None)
    assert press("complete", painted, 2, 4, 3) == completed
    assert press("surprise") == play.surprise(play.images[0], None)
    for name in ("", "_1"):
        press(f"show{name}", upload(tmp_path / "x.npy"))
        press(f"choose{name}", 100)
    assert press("guess", 2) == play.guess(0, 2) and press("others")[0] == play.guess(1, None)
    Image.new("L", (6000, 6000)).save(tmp_path / "large.png")
    layers = {**painted, "layers": [upload(tmp_path / "large.png")]}
    for name, values, word in (
        ("draw", (3, 1, 2**63), "maximum"),
        ("draw", (1.5, 1, 0), "integer"),
        ("compress", ([upload(tmp_path / "scalar.npy")],), "scalar.npy"),
        ("complete", (layers, 2, 4, 3), "pixels"),
        ("choose", (0.5,), "integer"),
    ):
        with pytest.raises(Exception, match=word) as error:
            press(name, *values)
        assert word == "pixels" or not re.search("/|split", str(error.value))  # Gradio's has both.
    request = urllib.request.Request(address, headers={"Host": "evil.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(request)


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="needs Debian's chromium")
@pytest.mark.filterwarnings("ignore")
def test_in_a_browser(address, tmp_path):
    """Draws, paints a mask, completes, saves and uploads, without errors or other hosts."""
    playwright = pytest.importorskip("playwright.sync_api")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    (tmp_path / "bad.png").write_bytes(b"no picture")
    errors, hosts = [], set()
    with playwright.sync_playwright() as session:
        browser = session.chromium.launch(executable_path=CHROMIUM, args=options)
        tab = browser.new_page(viewport={"width": 390, "height": 844})  # A phone.
        tab.set_default_timeout(120_000)
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
        tab.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
        tab.goto(address)

        def press(name):
            tab.get_by_role("button", name=name, exact=True).click()

        press("Draw")
        with tab.expect_download() as download:
            tab.get_by_text("Save film.gif").click()
        assert Image.open(download.value.path()).n_frames > 50

        tab.get_by_role("tab", name="Complete").click()
        canvas = tab.locator("canvas").first
        canvas.scroll_into_view_if_needed()
        tab.wait_for_timeout(1000)
        box = canvas.bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        tab.mouse.move(x - 60, y)
        tab.mouse.down()
        tab.mouse.move(x + 60, y, steps=20)
        tab.mouse.up()
        tab.wait_for_timeout(1000)
        press("Complete")
        caption = tab.locator("figcaption", has_text="known values").inner_text()
        assert 0 < int(caption.split()[0]) < 64, caption

        tab.locator("input[type=file]:visible, input[type=file]").first.set_input_files(
            tmp_path / "bad.png"
        )
        assert "bad.png" in tab.locator(".toast-body").inner_text()
        assert tab.evaluate("document.documentElement.scrollWidth") <= 390
        browser.close()
    assert not errors and hosts - {None} == {"127.0.0.1"}
