"""The models that come with the package are what their cards say."""

import json
import re

import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax.system import files

EACH = pytest.mark.parametrize("name", files.bundled_names())


def test_they_are_small():
    every = [path for path in files.BUNDLED.rglob("*") if path.is_file()]
    assert "digits" in files.bundled_names()
    assert sum(path.stat().st_size for path in every) < 10e6


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in ("digits", "mnist") else pytest.mark.slow)
        for name in files.bundled_names()
    ],
)
def test_the_likelihood_of_test_images(name):
    with np.load(files.BUNDLED / name / "slice.npz") as arrays:
        first = {key: values[:16] for key, values in arrays.items()}
    images, nats, condition = first["images"], first["nats"], first.get("condition")
    computed = -np.asarray(prnn.load(name).log_prob(images, condition))
    # Compiled in another way, a colour image of thousands of nats differs by up to 3e-3.
    np.testing.assert_allclose(computed, nats, rtol=0, atol=max(1e-3, 1e-6 * nats.max()))


@EACH
def test_a_card_has_the_numbers_of_the_run(name):
    card = (files.BUNDLED / name / "card.md").read_text()
    result = json.loads((files.BUNDLED / name / "result.json").read_text())
    test = result["test"]
    assert f"{test['nats']:.3f} ± {test['standard_error']:.3f} nats" in card
    assert f"{test['bits_per_dim']:.4f} bits/dim" in card
    assert f"{test['images']:,} test images" in card
    assert f"JAX {result['versions']['jax']}" in card
    for row in ("Data", "Licence", "Command", "Hardware", "Not for"):
        assert re.search(rf"^\| {row} \|", card, re.MULTILINE), row
    with np.load(files.BUNDLED / name / "slice.npz") as arrays:
        deviation = test["standard_error"] * np.sqrt(test["images"] / 100)
        assert arrays["nats"].mean() == pytest.approx(test["nats"], abs=4 * deviation)
