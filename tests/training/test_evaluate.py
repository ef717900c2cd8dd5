"""Evaluation counts every image once; the baseline against histograms made by hand."""

import math
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixel_rnn_jax.config import Config, DataConfig, ModelConfig
from pixel_rnn_jax.data import Source, open_source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import PixelRNN
from pixel_rnn_jax.runs.workdir import ImageFormat, write_config, write_image_format
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training.evaluate import Evaluation

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """Images of 2x3x2 with three levels, of which the training images never have the last."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    train = rng.integers(2, size=(30, 2, 3, 2), dtype=np.uint8)
    test = rng.integers(3, size=(13, 2, 3, 2), dtype=np.uint8)
    np.savez(path, train=train, validation=train[:1], test=test)
    config = Config(data=DataConfig(name=str(path), levels=3))
    return {split: open_source(config, split) for split in SPLITS}


def images_of(source: Source) -> np.ndarray:
    return source.batch(range(len(source))).images


@dataclass(frozen=True)
class Weighted:
    """Stands for a model of two scales: any function of each image alone."""

    likelihood = SimpleNamespace(discrete=True)
    image_shape = (2, 3, 2)
    scales = tuple(SimpleNamespace(network=SimpleNamespace(image_shape=(h, 3, 2))) for h in (1, 2))

    def nats_by_scale(self, params: Any, images: Any, labels: None) -> jax.Array:
        nats = (params * images).sum(axis=(1, 2, 3))
        return jnp.stack([nats / 4, nats * 3 / 4], axis=-1)


MODEL: Any = Weighted()


@pytest.mark.parametrize("devices_used", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 13, 50])
def test_every_image_counts_once(
    sources: dict[str, Source], batch_size: int, devices_used: int
) -> None:
    mesh = devices.make_mesh(devices_used)
    params = np.random.default_rng(1).normal(size=(1, 2, 3, 2))
    values = (params * images_of(sources["test"])).sum(axis=(1, 2, 3))
    result = evaluate.measure(MODEL, params, sources["test"], batch_size, mesh, step=7)
    assert (result.images, result.dims, result.step) == (13, 12, 7)
    assert result.nats == pytest.approx(values.mean(), rel=1e-5)
    assert result.shares == pytest.approx({1: result.nats / 4, 2: result.nats * 3 / 4})
    deviation = math.sqrt(((values - values.mean()) ** 2).sum() / 12)
    assert result.standard_error == pytest.approx(deviation / math.sqrt(13), rel=1e-5)


def test_one_image(sources: dict[str, Source]) -> None:
    mesh, params = devices.make_mesh(1), np.ones((1, 2, 3, 2))
    result = evaluate.measure(MODEL, params, sources["validation"], 8, mesh)
    assert result.nats == images_of(sources["validation"]).sum()
    assert math.isnan(result.standard_error)


def test_next_batch_is_dispatched_before_a_result_is_waited_for(
    sources: dict[str, Source], monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, int]] = []

    class Result:
        is_fully_addressable = True

        def __init__(self, params: object, batch: object):
            self.number = len(events)
            events.append(("dispatch", self.number))

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            events.append(("wait", self.number))
            return np.zeros((5, 2))

    monkeypatch.setattr(evaluate, "_compiled", lambda *_: Result)
    evaluate.measure(MODEL, None, sources["test"], 5, devices.make_mesh(1))
    kinds = [name for name, _ in events]
    assert kinds == ["dispatch", "dispatch", "wait", "dispatch", "wait", "wait"]
    waited = [number for name, number in events if name == "wait"]
    assert waited == [number for name, number in events if name == "dispatch"]


def test_units() -> None:
    result = Evaluation(
        nats=12 * math.log(2), standard_error=0.6 * math.log(2), dims=6, images=1234
    )
    assert result.bits_per_dim == pytest.approx(2)
    assert result.bits_per_dim_error == pytest.approx(0.1)
    assert str(result) == "8.318 ± 0.416 nats, 2.0000 ± 0.1000 bits/dim (1,234 images)"


def test_only_several_scales_are_recorded_one_by_one() -> None:
    one, two = ({8: 3.0}, {4: 1.0, 8: 2.0})
    result = Evaluation(nats=3.0, standard_error=0.5, dims=64, images=10, shares=one)
    names = {"validation/nats", "validation/standard_error", "validation/bits_per_dim"}
    assert result.record().keys() == names
    record = Evaluation(nats=3.0, standard_error=0.5, dims=64, images=10, shares=two).record()
    assert record.keys() - names == {f"validation/nats_of_height_{height}" for height in (4, 8)}
    assert (record["validation/nats"], record["validation/nats_of_height_8"]) == (3.0, 2.0)


@pytest.mark.parametrize("counted", [30, 7])
def test_independent_pixels(
    sources: dict[str, Source], monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    monkeypatch.setattr(evaluate, "BASELINE_IMAGES", counted)
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


def test_loss_is_the_log_probability() -> None:
    """Against a product of conditionals taken from the logits, for any batch."""
    config = ModelConfig("pixel_cnn", layers=1, features=2, first_kernel=3, head_features=3)
    model = PixelRNN(config, (2, 3, 2), 3)
    params = jax.jit(model.init)(jax.random.key(0))
    images = np.random.default_rng(0).integers(3, size=(4, 2, 3, 2), dtype=np.uint8)
    network = model.scales[0].network
    apply = jax.jit(lambda params, inputs: network.apply({"params": params}, inputs))
    logits = np.asarray(apply(params["scale_0"], jnp.asarray(images, float) - 1), np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(chances, images[..., None].astype(int), -1)
    nats = jax.jit(model.nats_by_scale)(params, images)
    np.testing.assert_allclose(nats[:, 0], -np.log(chosen).sum(axis=(1, 2, 3, 4)), rtol=1e-5)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    write_config(Config(data=DataConfig(name="digits")), tmp_path)
    write_image_format(ImageFormat((8, 8, 1), 17), tmp_path)
    return tmp_path


def test_workdir_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no config.json"):
        evaluate.evaluate(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_workdir_without_a_checkpoint(workdir: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        evaluate.evaluate(workdir)
    assert sorted(path.name for path in workdir.iterdir()) == ["config.json", "images.json"]


@pytest.mark.parametrize(
    ("height", "split", "message"),
    [
        (9, "test", r"trained on images of shape \(9, 8, 1\) and 17 levels, the split test has"),
        (8, "tset", "tset"),
    ],
)
def test_split_that_does_not_fit(height: int, split: str, message: str) -> None:
    run: Any = SimpleNamespace(
        config=Config(data=DataConfig(name="digits")), images=ImageFormat((height, 8, 1), 17)
    )
    with pytest.raises(UserError, match=message):
        evaluate.open_split(run, split)
