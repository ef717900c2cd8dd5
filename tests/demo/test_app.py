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
from urllib.parse import urlsplit

import app
import gradio_client
import jax
import numpy as np
import pytest
from helpers import programs
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import pictures

CHROMIUM = shutil.which("chromium")
NUMBER = r"-?\d[\d,]*(?:\.\d+)?"


@pytest.fixture(scope="module")
def play():
    return app.Play("digits")


@pytest.fixture(scope="module")
def classes(tmp_path_factory):
    config = prnn.ModelConfig("pixel_cnn", 1, 4, num_classes=3, scales=(2, 4))
    path = tmp_path_factory.mktemp("model") / "digits"  # A file of one's own, by a bundled name.
    prnn.create(config, (4, 4, 3), levels=256).save(path)
    return app.Play(path)


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
def test_draws_what_the_api_draws(name, given, request):
    play = request.getfixturevalue(name)
    condition = None if given is None else np.full(4, given)
    images = play.model.sample(jax.random.key(7), 4, condition, temperature=0.8)
    picture, _, (nats, bits) = parts(play.draw(4, 0.8, 7, given))
    np.testing.assert_array_equal(np.asarray(picture), pictures.grid(images, play.model.levels))
    assert nats == pytest.approx(-float(play.model.log_prob(images, condition).mean()), abs=0.01)
    assert bits == pytest.approx(float(play.model.bits_per_dim(images, condition).mean()), abs=1e-4)


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


def test_a_photo_is_cut_and_scaled(play, tmp_path):
    photo = np.round(play.images[0].repeat(9, 0).repeat(9, 1) * (255 / 16))
    photo = np.pad(photo, ((0, 0), (40, 40), (0, 0))).astype(np.uint8)
    Image.fromarray(photo.repeat(3, -1)).save(tmp_path / "photo.png")
    image, _, remark = play.upload(str(tmp_path / "photo.png"), None)
    np.testing.assert_array_equal(image, play.images[0])
    assert "8x8" in remark


def test_an_image_brings_its_class_or_it_is_found(play, classes, tmp_path):
    np.save(tmp_path / "x.npy", classes.images[3:5])
    image, found, _ = classes.upload(str(tmp_path / "x.npy"), None)
    np.testing.assert_array_equal(image, classes.images[3])
    assert found == classes.model.classify(classes.images[3:4])[0]
    assert classes.given(5, 0) == classes.condition[5] == 2
    assert classes.given(-1, 1) == 1 and play.given(5, None) is None
    _, text, _ = parts(classes.surprise(classes.images[5], 2))
    assert f"{classes.nats[5]:.2f} nats" in text


def test_what_does_not_fit_is_named(play, classes, tmp_path):
    (tmp_path / "bad.png").write_bytes(b"no picture")
    np.save(tmp_path / "large.npy", np.zeros((1, 9, 9), np.uint8))
    for call, words in (
        (lambda: play.upload(str(tmp_path / "bad.png"), None), "bad.png"),
        (lambda: play.upload(str(tmp_path / "large.npy"), None), r"\[9, 9, 1\]"),
        (lambda: play.complete(play.images[0], {}, 4, 64, 0, None), "paint"),
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


@pytest.mark.slow
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
    assert press("draw", 3, 0.5, 7) == play.draw(3, 0.5, 7, None)
    layer = np.tile(np.uint8([*pictures.UNKNOWN, 255]), (100, 100, 1))
    Image.fromarray(layer).save(tmp_path / "blue.png")
    painted = {"background": None, "layers": [upload(tmp_path / "blue.png")], "composite": None}
    completed = play.complete(play.images[0], {"layers": [layer]}, 2, 4, 3, None)
    assert press("complete", painted, 2, 4, 3) == completed
    assert press("surprise") == play.surprise(play.images[0], None)
    for name in ("", "_1"):
        press(f"upload{name}", upload(tmp_path / "x.npy"))
        press(f"choose{name}", 100)
    Image.new("L", (6000, 6000)).save(tmp_path / "large.png")
    layers = {**painted, "layers": [upload(tmp_path / "large.png")]}
    for name, values, word in (
        ("draw", (3, 1, 2**63), "maximum"),
        ("draw", (1.5, 1, 0), "integer"),
        ("upload", (upload(tmp_path / "scalar.npy"),), "scalar.npy"),
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
            tab.get_by_text("Save samples.png").click()
        assert Image.open(download.value.path()).size[0] > 100

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
