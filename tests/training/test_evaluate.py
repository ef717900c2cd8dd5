"""Evaluation counts every image once; the baseline against histograms made by hand."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from pixel_rnn_jax.config import Config, DataConfig
from pixel_rnn_jax.data import open_source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training.evaluate import Evaluation


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Images of 2x3x2 with three levels, of which the training images never have the last."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    train, test = rng.integers(2, size=(30, 2, 3, 2)), rng.integers(3, size=(13, 2, 3, 2))
    np.savez(path, train=train, validation=train[:1], test=test)
    config = Config(data=DataConfig(name=str(path), levels=3))
    return {split: open_source(config, split) for split in ("train", "validation", "test")}


def images_of(source):
    return source.batch(range(len(source))).images


@dataclass(frozen=True)
class Weighted:
    """Stands for a model of two scales: any function of each image alone."""

    likelihood = SimpleNamespace(discrete=True)
    image_shape, levels, dims = (2, 3, 2), 3, 12
    scales = tuple(SimpleNamespace(network=SimpleNamespace(image_shape=(h, 3, 2))) for h in (1, 2))

    def nats_by_scale(self, params, images, condition):
        nats = (params * images).sum(axis=(1, 2, 3))
        return jnp.stack([nats / 4, nats * 3 / 4], axis=-1)


MODEL = Weighted()


@pytest.mark.parametrize("devices_used", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 13, 50])
def test_every_image_counts_once(sources, batch_size, devices_used):
    mesh = devices.make_mesh(devices_used)
    params = np.random.default_rng(1).normal(size=(1, 2, 3, 2))
    values = (params * images_of(sources["test"])).sum(axis=(1, 2, 3))
    result = evaluate.measure(MODEL, params, sources["test"], batch_size, mesh, step=7)
    assert (result.images, result.dims, result.step) == (13, 12, 7)
    assert result.nats == pytest.approx(values.mean(), rel=1e-5)
    assert result.shares == pytest.approx({1: result.nats / 4, 2: result.nats * 3 / 4})
    deviation = math.sqrt(((values - values.mean()) ** 2).sum() / 12)
    assert result.standard_error == pytest.approx(deviation / math.sqrt(13), rel=1e-5)


def test_one_image(sources):
    mesh, params = devices.make_mesh(1), np.ones((1, 2, 3, 2))
    result = evaluate.measure(MODEL, params, sources["validation"], 8, mesh)
    assert result.nats == images_of(sources["validation"]).sum()
    assert math.isnan(result.standard_error)


def test_few_images_are_a_small_batch(sources, monkeypatch):
    sizes = []

    def nats(params, batch):
        sizes.append(len(batch.images))
        return np.zeros((len(batch.images), 2))

    monkeypatch.setattr(evaluate, "_compiled", lambda *_: nats)
    monkeypatch.setattr(devices, "local_rows", lambda nats: nats)
    for images, batch_size, size in (("test", 200, 16), ("validation", 200, 2), ("test", 6, 6)):
        evaluate.measure(MODEL, None, sources[images], batch_size, devices.make_mesh(2))
        assert sizes.pop(0) == size
        sizes.clear()


def test_next_batch_is_dispatched_before_a_result_is_waited_for(sources, monkeypatch):
    events = []

    def dispatch(params, batch):
        events.append(f"dispatch {(number := len(events))}")
        return number

    def wait(number):
        events.append(f"wait for {number}")
        return np.zeros((5, 2))

    monkeypatch.setattr(evaluate, "_compiled", lambda *_: dispatch)
    monkeypatch.setattr(devices, "local_rows", wait)
    evaluate.measure(MODEL, None, sources["test"], 5, devices.make_mesh(1))
    first, second, third = "dispatch 0", "dispatch 1", "dispatch 3"
    assert events == [first, second, "wait for 0", third, "wait for 1", "wait for 3"]


def test_units():
    nats, error = 12 * math.log(2), 0.6 * math.log(2)
    result = Evaluation(nats, error, dims=6, images=1234, shares={4: nats})
    assert str(result) == "8.318 ± 0.416 nats, 2.0000 ± 0.1000 bits/dim (1,234 images)"
    record = {"nats": nats, "standard_error": error, "bits_per_dim": pytest.approx(2)}
    record = {f"validation/{name}": value for name, value in record.items()}
    assert result.record() == record
    # One image has no standard error.
    single = replace(result, images=1, standard_error=math.nan)
    assert str(single) == "8.318 nats, 2.0000 bits/dim (1 image)"
    # Only several scales are recorded one by one.
    heights = {"validation/nats_of_height_2": 1.0, "validation/nats_of_height_4": nats - 1.0}
    assert replace(result, shares={2: 1.0, 4: nats - 1.0}).record() == record | heights


@pytest.mark.parametrize(("counted", "counts"), [(30, 2**24), (7, 2**24), (7, 15), (7, 1)])
def test_independent_pixels(sources, monkeypatch, counted, counts):
    monkeypatch.setattr(evaluate, "BASELINE_IMAGES", counted)
    monkeypatch.setattr(evaluate, "BASELINE_COUNTS", counts)
    train, test = images_of(sources["train"])[:counted], images_of(sources["test"])
    nats = np.zeros(len(test))
    for position in np.ndindex(2, 3, 2):
        histogram = [np.sum(train[:, *position] == level) + 1 for level in range(3)]
        probabilities = np.array(histogram) / (counted + 3)
        assert probabilities.sum() == pytest.approx(1)
        nats -= np.log(probabilities[test[:, *position]])
    result = evaluate.independent_pixels(sources["train"], sources["test"], batch_size=4)
    assert result.nats == pytest.approx(nats.mean(), rel=1e-12)
    assert result.standard_error == pytest.approx(nats.std(ddof=1) / math.sqrt(13), rel=1e-12)
    assert (result.images, result.counted) == (13, counted)


@pytest.mark.parametrize(
    ("height", "split", "message"),
    [
        (9, "test", r"trained on images of shape \(9, 8, 1\) and 17 levels, the split test has"),
        (8, "tset", "tset"),
    ],
)
def test_split_that_does_not_fit(height, split, message):
    run = SimpleNamespace(config=Config(), image_format=ImageFormat((height, 8, 1), 17))
    with pytest.raises(UserError, match=message):
        evaluate.open_split(run, split)
