"""Evaluation counts every image once; the baseline and the scores by hand."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.runs.config import Config
from pixel_rnn_jax.runs.source import open_split
from pixel_rnn_jax.system import devices
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training.evaluate import Evaluation, score


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    """Images of 2x3x2 with three levels, of which the training images never have the last."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    images, test = rng.integers(2, size=(30, 2, 3, 2)), rng.integers(3, size=(13, 2, 3, 2))
    np.savez(path, train=images, validation=images[:1], test=test)
    config = Config(data=DataConfig(name=str(path), levels=3))
    return {split: open_split(config, split) for split in ("train", "validation", "test")}


def images_of(split):
    return split.batch(range(len(split))).images


@dataclass(frozen=True)
class Weighted:
    """Stands for a model of two scales: any function of each image alone."""

    image_shape, levels, num_values = (2, 3, 2), 3, 12
    scales = tuple(SimpleNamespace(network=SimpleNamespace(image_shape=(h, 3, 2))) for h in (1, 2))

    recurrent, likelihood, stride = False, SimpleNamespace(dequantised=False), 1
    config = SimpleNamespace(features=1, head_features=1)

    def sized(self, height, width):
        return self

    def nats_by_scale(self, params, images, condition, *, per_value=False, **options):
        terms = jnp.stack([params * images / 4, params * images * 3 / 4], axis=1)
        return terms if per_value else terms.sum(axis=(2, 3, 4))


MODEL = Weighted()


@pytest.mark.parametrize(("batch_size", "devices_used"), [(1, 1), (4, 2), (13, 1), (50, 8)])
def test_every_image_counts_once(splits, batch_size, devices_used):
    mesh = devices.make_mesh(devices_used)
    params = np.random.default_rng(1).normal(size=(1, 2, 3, 2))
    values = (params * images_of(splits["test"])).sum(axis=(1, 2, 3))
    deviation = math.sqrt(((values - values.mean()) ** 2).sum() / 12)
    for per_value in False, True:
        options = dict(batch_size=batch_size, mesh=mesh, per_value=per_value)
        result = score(MODEL, params, splits["test"], **options)
        np.testing.assert_allclose(result.nats_per_image, values, rtol=1e-4, atol=1e-5)
        assert result.nats == pytest.approx(values.mean(), rel=1e-5)
        assert result.shares == pytest.approx({1: result.nats / 4, 2: result.nats * 3 / 4})
        assert result.standard_error == pytest.approx(deviation / math.sqrt(13), rel=1e-5)
    terms = params * images_of(splits["test"])
    np.testing.assert_allclose(result.nats_per_value, terms, rtol=1e-4, atol=1e-6)


def test_units():
    nats = 12 * math.log(2)
    result = Evaluation(nats + np.array([1.0, -1.0]), 6, shares={4: nats})
    assert str(result) == "8.318 ± 1.000 nats, 2.0000 ± 0.2404 bits/dim (2 images)"
    numbers = {"nats": nats, "standard_error": 1.0, "bits_per_dim": 2.0, "images": 2}
    assert result.numbers() == pytest.approx(numbers)
    # One image has no standard error.
    single = replace(result, nats_per_image=np.array([nats]))
    assert math.isnan(single.standard_error) and "standard_error" not in single.numbers()
    # Only several scales are recorded one by one.
    heights = {"nats_of_height_2": 1.0, "nats_of_height_4": nats - 1.0}
    several = replace(result, shares={2: 1.0, 4: nats - 1.0})
    assert several.numbers() == pytest.approx(numbers | heights)


@pytest.mark.parametrize("size", [1, 2])
def test_independent_pixels(splits, monkeypatch, size):
    """With a bin for each of the three levels, and with bins of two."""
    monkeypatch.setattr(evaluate, "BASELINE_IMAGES", 7)
    monkeypatch.setattr(evaluate, "BASELINE_BINS", 4 - size)
    images, test = images_of(splits["train"])[:7], images_of(splits["test"])
    nats = np.zeros(len(test))
    for position in np.ndindex(2, 3, 2):
        bins = [level // size for level in range(3)]
        histogram = [np.sum(images[:, *position] // size == number) + 1 for number in bins]
        probabilities = np.array(histogram) / (7 + len(set(bins))) / size
        assert size > 1 or probabilities.sum() == pytest.approx(1)
        nats -= np.log(probabilities[test[:, *position]])
    result = evaluate.independent_pixels(splits["train"], splits["test"], batch_size=4)
    np.testing.assert_allclose(result.nats_per_image, nats, rtol=1e-12)
