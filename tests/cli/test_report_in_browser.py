"""What a browser shows of a report: headless Chromium, where it is installed."""

import dataclasses
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from report_pages import SMALL, result, write_run

from pixel_rnn_jax import pictures
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.report import facts, render
from pixel_rnn_jax.report.curves import COLOURS
from pixel_rnn_jax.training.pixel_map import PixelMap

CHROMIUM = shutil.which("chromium")
QUIET = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium on PATH")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of two runs, one with a map."""
    folder = tmp_path_factory.mktemp("page")
    other = dataclasses.replace(SMALL, model=ModelConfig("row_lstm"))
    write_run(folder / "a", SMALL, result=result(90.0))
    write_run(folder / "b", other, start=115.0)
    runs = [facts.read_run(str(folder / name), pixel_map=False) for name in "ab"]
    nats = np.linspace(0, 1, 64).reshape(1, 8, 8)
    drawn = pictures.pixel_map(np.zeros((1, 8, 8, 1), int), nats, 2)
    runs[0] = dataclasses.replace(runs[0], pixel_map=PixelMap(drawn, 1, 0.0, 1.0))
    path = folder / "report.html"
    path.write_text(render(runs), encoding="utf-8")
    return path


@pytest.fixture
def shot(page, tmp_path):
    """Returns what is seen of the page, `[height, width, 3]`."""

    def take(width, height, *flags):
        out, profile = tmp_path / "shot.png", tmp_path / "profile"
        size = f"--window-size={width},{height}"
        target = [f"--screenshot={out}", size, f"--user-data-dir={profile}", f"file://{page}"]
        subprocess.run(
            [str(CHROMIUM), *QUIET, *flags, *target], check=True, capture_output=True, timeout=60
        )
        with Image.open(out) as image:
            return np.asarray(image.convert("RGB")).astype(int)

    return take


def of_colour(seen, colour):
    """Returns which pixels have a colour, "#rrggbb"."""
    return (seen == [int(colour[i : i + 2], 16) for i in (1, 3, 5)]).all(-1)


def check_parts(seen):
    """Asserts that curves and pictures are seen, not only the keys beside names."""
    for colour in COLOURS[:2]:
        # Curves fall over much of the height of a panel; a key has four rows.
        assert of_colour(seen, colour).any(1).sum() > 150
    assert not of_colour(seen, COLOURS[2]).any()
    assert of_colour(seen, "#808080").sum() > 500  # What is unknown in completions, and gaps.
    red, green, blue = np.moveaxis(seen, -1, 0)
    assert ((red > 230) & (green > 100) & (blue < 20)).sum() > 500  # The middle of the map.


def test_light(shot):
    seen = shot(1200, 2400)
    assert seen.shape == (2400, 1200, 3)
    assert np.median(seen) > 240 and (seen.max(-1) < 80).mean() > 0.002  # Dark words on paper.
    check_parts(seen)


def test_dark(shot):
    seen = shot(1200, 2400, "--blink-settings=preferredColorScheme=0")
    assert np.median(seen) < 40 and (seen.min(-1) > 180).mean() > 0.002
    check_parts(seen)


def test_narrow(shot):
    """One column, no wider than the window: the paper is seen on both sides of what it holds."""
    seen = shot(500, 4800)
    check_parts(seen)
    paper = of_colour(seen, "#f6f7f9")
    assert paper[:, :13].all() and paper[:, -13:].all() and not paper[:, 13:-13].all(1).all()
