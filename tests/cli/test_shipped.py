"""The models that come with the package are what their cards say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import shipped

MEGABYTES = 10
"""Of all models together, at most."""


def result_of(name):
    return json.loads((shipped.FOLDER / name / "result.json").read_text())


def test_only_a_string_is_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(prnn.UserError, match="digits holds no training run"):
        prnn.load(Path("./digits"))


def test_they_are_small():
    files = [path for path in shipped.FOLDER.rglob("*") if path.is_file()]
    assert "digits" in shipped.names()
    assert sum(path.stat().st_size for path in files) < MEGABYTES * 10**6


@pytest.mark.parametrize("name", shipped.names())
def test_the_likelihood_of_a_hundred_test_images(name):
    with np.load(shipped.FOLDER / name / "slice.npz") as arrays:
        images, nats = arrays["images"], arrays["nats"]
        condition = arrays.get("condition")
    assert images.shape[0] == 100
    found = -np.asarray(prnn.load(name).log_prob(images, condition))
    # Compiled in another way, a colour image of thousands of nats differs by up to 3e-3.
    np.testing.assert_allclose(found, nats, rtol=0, atol=max(1e-3, 1e-6 * nats.max()))
    test = result_of(name)["test"]
    deviation = test["standard_error"] * np.sqrt(test["images"] / 100)
    assert nats.mean() == pytest.approx(test["nats"], abs=4 * deviation)


@pytest.mark.parametrize("name", shipped.names())
def test_a_card_has_the_numbers_of_the_run(name):
    card, result = (shipped.FOLDER / name / "card.md").read_text(), result_of(name)
    test = result["test"]
    assert f"{test['nats']:.3f} ± {test['standard_error']:.3f} nats" in card
    assert f"{test['bits_per_dim']:.4f} bits/dim" in card
    assert f"{test['images']:,} test images" in card
    assert f"JAX {result['versions']['jax']}" in card
    for part in ("Data", "Licence", "Command", "Hardware", "Not for"):
        assert re.search(rf"^\| {part} \|", card, re.MULTILINE), part


def test_evaluate_prints_the_number_of_the_card(run, capsys):
    assert run("evaluate --model=digits") == 0
    printed = capsys.readouterr().out
    test = result_of("digits")["test"]
    nats = float(re.search(r"^test, step \d+: ([\d.]+) ± ", printed)[1])
    assert nats == pytest.approx(test["nats"], abs=2e-3)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("sample --model=digit", "there is no model 'digit' in the package: choose from "),
        ("sample --model=digits --workdir=x", "leave out one of --workdir and --model"),
        ("sample", "sample needs --workdir=DIR, the directory of a training run, or --model=NAME"),
    ],
)
def test_mistakes(run, capsys, words, message):
    assert run(words) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
