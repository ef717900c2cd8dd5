"""The verb `report`: what stands on the page, that it needs nothing else, and what is refused."""

import base64
import dataclasses
import io
import json
import re
import shutil
import sys
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
from PIL import Image
from report_pages import REAL, SMALL, Page, record, result, write_run
from workdirs import full_disk, two_steps

from pixel_rnn_jax import data, load, pictures
from pixel_rnn_jax.config import DataConfig, ModelConfig, TrainConfig
from pixel_rnn_jax.report import curves, facts
from pixel_rnn_jax.report import page as page_lib
from pixel_rnn_jax.training.train import train

HOSTILE = "</style><script>alert('x')</script>&\"{{ 7 * 7 }}"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two steps on images of three levels, complete, with its data."""
    folder = tmp_path_factory.mktemp("runs") / "trained"
    folder.mkdir()
    images = np.random.default_rng(0).integers(3, size=(40, 4, 5, 1), dtype=np.uint8)
    splits = dict(zip(("train", "validation", "test"), np.split(images, [10, 30]), strict=True))
    np.savez(folder / "images.npz", **splits)
    train(two_steps(folder / "images.npz"), folder)
    return folder


@pytest.fixture
def report(run, tmp_path, monkeypatch, capsys):
    """Makes a report in an empty folder; returns the page, or the error with a status."""
    monkeypatch.chdir(tmp_path)

    def make(words, status=0):
        assert run(f"report {words} --out=report.html") == status
        out, err = capsys.readouterr()
        if status:
            (line,) = err.splitlines()
            return line.removeprefix("error: ")
        assert re.fullmatch(r"report\.html: \d+ runs?, [\d,]+ kB\n", out) and not err
        return Page(Path("report.html").read_text(encoding="utf-8"))

    return make


def decoded(address):
    """Returns the content of a data: address."""
    kind, _, content = address.partition(";base64,")
    assert kind in ("data:image/png", "data:image/svg+xml")
    return base64.b64decode(content, validate=True)


def test_a_trained_run(trained, report, monkeypatch):
    opened, open_source = [], data.open_source

    def noting(config, split, **options):
        opened.append(split)
        return open_source(config, split, **options)

    monkeypatch.setattr(data, "open_source", noting)
    page = report(f"--workdir={trained}")
    assert opened == ["validation"]
    written = json.loads((trained / "result.json").read_text())
    test, baseline = written["test"], written["independent_pixels"]
    (row,) = page.rows()
    assert row["run"] == "trained"
    assert row["test, nats"] == f"{test['nats']:.3f} ± {test['standard_error']:.3f}"
    assert row["test, bits/dim"] == f"{test['bits_per_dim']:.4f}"
    assert row["independent pixels, nats"].startswith(f"{baseline['nats']:.3f} ± ")
    assert (row["of step"], row["steps made"], row["test images"]) == ("2", "2", "10")
    assert "This run is complete, after 2 steps." in page.text
    for value in (written["versions"]["jax"], written["hardware"]["device"], str(trained)):
        assert value in page.text
    # Samples, completions, and the map of the first validation images.
    drawn = [decoded(a) for a in page.addresses if a.startswith("data:image/png")]
    assert drawn[:2] == [
        (trained / "pictures" / f"{name}-2.png").read_bytes() for name in ("samples", "completions")
    ]
    with np.load(trained / "images.npz") as arrays:
        images = arrays["validation"][:16]
    nats = -np.asarray(load(trained).log_prob(images, per_value=True)).sum(-1)
    with Image.open(io.BytesIO(drawn[2])) as image:
        np.testing.assert_array_equal(np.asarray(image), pictures.pixel_map(images, nats, 3))
    assert f"{nats.max():.2f} nats" in page.text


def test_a_map_needs_more_memory_than_there_is(trained, report, monkeypatch):
    full = Mock(side_effect=RuntimeError("RESOURCE_EXHAUSTED: Out of memory. Here is more."))
    monkeypatch.setattr(facts, "draw_pixel_map", full)
    assert "There is none: the device has no memory left" in report(f"--workdir={trained}").text
    full.side_effect = RuntimeError("a bug")
    with pytest.raises(RuntimeError, match="a bug"):
        report(f"--workdir={trained}")


def test_the_page_needs_nothing_else(tmp_path, report):
    write_run(tmp_path / "a", SMALL, result=result(90.0))
    page, text = report("--workdir=a"), Path("report.html").read_text(encoding="utf-8")
    assert page.addresses and all(address.startswith("data:image/") for address in page.addresses)
    plain = re.sub(r"data:[^\"]*", "", text)
    assert not re.search(r"https?:|//|url\(|@import|javascript", plain)
    assert not {"script", "link", "iframe", "object", "form"} & {*page.tags}
    # Nor do the curves.
    for address in page.addresses:
        if "svg" in address:
            svg = decoded(address).decode()
            assert not re.search(r'href="(?!#)|<script|<image|@import', svg)


def test_curves(tmp_path):
    """Against steps and time, in nats and bits/dim, in the colours of the runs."""
    folders = [write_run(tmp_path / "a", SMALL), write_run(tmp_path / "b", SMALL, start=100.0)]
    runs = [facts.read_run(str(folder), pixel_map=False) for folder in folders]
    panels = curves.draw(runs)
    assert [panel.title for panel in panels] == [
        "nats per image, against steps",
        "nats per image, against training time",
        "bits/dim, against steps",
        "bits/dim, against training time",
    ]
    for panel in panels:
        for svg, ink in ((panel.light, "light"), (panel.dark, "dark")):
            text = svg.decode()
            # Training, validation and its best value.
            lines = [text.count(f"fill: none; stroke: {curves.COLOURS[i]}") for i in range(2)]
            assert lines == [3, 3]
            assert curves.INK[ink] in text
    assert curves.draw(runs) == panels
    assert runs[0].points("validation/nats")[0] == pytest.approx((20, 120 * (0.75 + 0.25 * 0.9**4)))
    assert runs[0].points("validation/nats", by="seconds")[-1][0] == 150
    assert len({curves.style(number) for number in range(24)}) == 24


def test_long_curves_are_thinned_and_the_first_values_cut_off():
    points = curves._thinned([(i, i) for i in range(2501)])
    assert 800 <= len(points) <= curves.MOST_POINTS and points[-1].tolist() == [2500, 2500]
    values = np.array([1000.0, *np.linspace(90, 80, 40)])
    low, high = curves._limits([values])
    assert 75 < low < 80 and 85 < high < 100
    assert curves._limits([np.array([3.0])])[0] < 3


def test_several_runs_side_by_side(tmp_path, report):
    other = dataclasses.replace(SMALL, model=ModelConfig("row_lstm", layers=3))
    write_run(tmp_path / "one" / "same", SMALL, result=result(90.0))
    write_run(tmp_path / "two" / "same", other, seconds=False)
    page = report("--workdir=one/same two/same one/same")
    first, second = page.rows()
    assert (first["run"], second["run"]) == ("one/same", "two/same")
    assert (first["test, nats"], first["time"]) == ("90.000 ± 0.250", "2 min 30 s")
    assert second["test, nats"] == "–"
    assert second["best validation, nats"].startswith("93.6")
    assert (second["steps made"], second["time"]) == ("100", "–")
    assert "ended after 100 steps: all steps are made. There is no figure on a test" in page.text
    assert "two/same: no record of the training time" in page.text
    assert page.tables[1][1:] == [
        ["model.architecture", "diagonal_bilstm", "row_lstm"],
        ["model.layers", "7", "3"],
    ]
    assert "cannot be compared" not in page.text
    # Neither has a checkpoint to draw a map with.
    assert page.text.count("There is none: there is no checkpoint in") == 2


def test_a_density_of_real_values_beside_levels(tmp_path, report):
    real = dataclasses.replace(SMALL, model=ModelConfig(output="gaussian_mixture"))
    own = result(-5.0)
    del own["test"]["bits_per_dim"]
    write_run(tmp_path / "real", real, REAL, start=-4.0, result=own)
    write_run(tmp_path / "levels", SMALL, result=result(90.0))
    first, second = report("--workdir=real levels --nomaps").rows()
    assert (first["test, nats"], first["test, bits/dim"]) == ("-5.000 ± 0.250", "–")
    assert second["test, bits/dim"] == "2.0288"
    page = report("--workdir=real levels --nomaps")
    assert "These runs have different data" in page.text and "may be negative" in page.text
    panels = curves.draw([facts.read_run("real", pixel_map=False)])
    assert [panel.title.split(",")[0] for panel in panels] == 2 * ["nats per image"]
    page = report("--workdir=levels --nomaps")
    assert "may be negative" not in page.text


def test_a_run_that_goes_on_or_has_just_begun(tmp_path, report):
    write_run(tmp_path / "on", SMALL, result=result(90.0, steps=60, resumed_from=20))
    page = report("--workdir=on --nomaps")
    assert "has gone on since its result, which is of 60 steps: it is at step 100 of" in page.text
    assert "2 min 32 s, after 20 steps made before" in page.text
    shutil.rmtree(tmp_path / "on" / "pictures")
    for name in ("metrics.jsonl", "result.json"):
        (tmp_path / "on" / name).unlink()
    page = report("--workdir=on")
    assert "it is at step 0 of 100." in page.text and "Nothing has been recorded yet" in page.text


@pytest.mark.parametrize("patience, ended", [(0, False), (2, True), (3, False)])
def test_a_run_of_fit_that_has_ended_since_nothing_improved(tmp_path, report, patience, ended):
    settings = TrainConfig(steps=1000, eval_every=20, patience=patience)
    folder = write_run(tmp_path / "run", dataclasses.replace(SMALL, train=settings))
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for row in records[6:]:  # After step 60 validation is worse.
        row.update({"validation/nats": 300.0} if "validation/nats" in row else {})
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in records))
    said = "after 100 steps: its validation had stopped improving" if ended else "not complete yet"
    assert said in report("--workdir=run --nomaps").text


def test_the_dot_is_at_the_best_of_a_long_curve(tmp_path):
    folder = write_run(tmp_path / "run", SMALL)
    nats = np.full(3000, 90.0)
    nats[1234] = 70
    rows = [{"step": i, "validation/nats": value} for i, value in enumerate(nats)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = facts.read_run(str(folder), pixel_map=False)
    assert curves._curves(run, curves.style(0), "nats", "step").best.tolist() == [[1234, 70]]


def test_the_newest_whole_pictures_are_shown(tmp_path):
    folder = write_run(tmp_path / "a", SMALL) / "pictures"
    whole = (folder / "samples-100.png").read_bytes()
    (folder / "samples-90.png").write_bytes(whole)
    (folder / "samples-2000.png").write_bytes(whole[:-4])  # Training is writing it.
    (folder / "completions-300.png").write_text("<script>")
    (folder / "completions-200.png").write_bytes(whole)
    found = facts.read_run(str(tmp_path / "a"), pixel_map=False).pictures
    assert {name: picture.step for name, picture in found.items()} == {
        "samples": 100,
        "completions": 200,
    }


def test_nothing_in_a_workdir_becomes_markup(tmp_path, report):
    config = dataclasses.replace(SMALL, data=DataConfig(name=HOSTILE))
    hostile = result(90.0, finished=HOSTILE, versions={HOSTILE: HOSTILE}, hardware={"a": HOSTILE})
    write_run(tmp_path / "<b>$x_{1}$ 漢", config, result=hostile)
    page = report("--workdir='<b>$x_{1}$ 漢'")
    assert "script" not in page.tags and "b" not in page.tags
    (row,) = page.rows()
    assert row["run"] == "<b>$x_{1}$ 漢"
    assert page.text.count(HOSTILE) >= 6 and "49" not in str(page.tables[1])


def test_fields_that_differ_from_the_defaults_come_first(tmp_path, report):
    config = dataclasses.replace(SMALL, model=ModelConfig("row_lstm", scales=(4, 8), skip=False))
    write_run(tmp_path / "a", config)
    page = report("--workdir=a --nomaps")
    changed, every = page.tables[1:]
    assert changed == [
        ["set to another value", "value", "default"],
        ["model.architecture", "row_lstm", "diagonal_bilstm"],
        ["model.scales", "4, 8", "(empty)"],
        ["model.skip", "false", "true"],
        ["train.steps", "100", "2500"],
    ]
    assert every[1:5] == changed[1:] and ["seed", "0", "0"] in every
    assert f"All {len(every) - 1} fields" in page.text


def test_what_is_no_run_is_one_sentence_and_leaves_an_earlier_report(tmp_path, report):
    write_run(tmp_path / "a", SMALL)
    (tmp_path / "empty").mkdir()
    (tmp_path / "report.html").write_text("earlier")
    for words, message in [
        ("--workdir=none", "none holds no training run: there is no config.json in it"),
        ("--workdir=a empty", "empty holds no training run: there is no config.json in it"),
    ]:
        assert report(words, status=2) == message
    (tmp_path / "a" / "result.json").write_text('{"step": 1}')
    message = r"a/result\.json is damaged \(KeyError.*delete it and give the command of the "
    assert re.match(message, report("--workdir=a --nomaps", status=2))
    (tmp_path / "a" / "result.json").write_text("[" * 10**5)
    assert r"result.json is damaged (RecursionError" in report("--workdir=a --nomaps", status=2)
    (tmp_path / "a" / "result.json").unlink()
    with full_disk(1000):
        message = report("--workdir=a --nomaps", status=2)
    assert message == "report.html cannot be written: File too large"
    assert (tmp_path / "report.html").read_text() == "earlier"
    assert {path.name for path in tmp_path.iterdir()} == {"a", "empty", "report.html"}


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_a_package_is_missing(package, report, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    assert report("--workdir=none", status=2) == (
        "a report needs packages that are not installed: pip install 'pixel-rnn-jax[report]'"
    )


def test_names_are_as_short_as_they_can_be():
    assert page_lib.run_names(["runs/a", "/x/b/"]) == ["a", "b"]
    assert page_lib.run_names(["x/a", "y/a", "z/b"]) == ["x/a", "y/a", "z/b"]
    assert page_lib.run_names(["a", "/a", "."]) == ["a", "/a", "."]


@pytest.mark.parametrize(
    "seconds, text",
    [
        (None, "–"),
        (1.26, "1.3 s"),
        (59.9, "60 s"),
        (185, "3 min 05 s"),
        (7620, "2 h 07 min"),
        (273600, "3 d 04 h"),
    ],
)
def test_durations(seconds, text):
    assert page_lib.duration(seconds) == text


def test_records_that_are_no_numbers_are_no_points(tmp_path):
    folder = write_run(tmp_path / "a", SMALL)
    lines = [record(10, 120.0, bits=True, seconds=True) | {"train/nats": "x", "seconds": None}]
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run = facts.read_run(str(folder), pixel_map=False)
    assert not run.points("train/nats") and run.seconds is None
