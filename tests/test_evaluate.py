"""Evaluation counts every image once; the baseline against histograms made by hand."""

import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixel_rnn_jax import config, evaluate, joint, parallel
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig
from pixel_rnn_jax.data import Source, open_source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.evaluate import Evaluation
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.models.pixel_rnn import PixelRNN


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Source]:
    """Images of 2x3x2 with three levels, of which the training images never have the last."""
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("data") / "images.npz"
    train = rng.integers(2, size=(30, 2, 3, 2), dtype=np.uint8)
    test = rng.integers(3, size=(13, 2, 3, 2), dtype=np.uint8)
    np.savez(path, train=train, validation=train[:1], test=test)
    data_config = DataConfig(name=str(path), levels=3)
    return {split: open_source(data_config, split) for split in ("train", "validation", "test")}


def _images(source: Source) -> np.ndarray:
    return source.__getitems__(range(len(source)))


def _weighted(params: jax.Array, batch: Batch) -> jax.Array:
    """Stands for a model: any function of each image alone, for two scales."""
    nats = (params * batch.images).sum(axis=(1, 2, 3))
    return jnp.stack([nats / 4, nats * 3 / 4], axis=-1)


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 13, 50])
def test_every_image_counts_once(sources: dict[str, Source], batch_size: int, devices: int) -> None:
    mesh = parallel.make_mesh(devices)
    params = np.random.default_rng(1).normal(size=(2, 3, 2))
    values = (params * _images(sources["test"])).sum(axis=(1, 2, 3))
    nats_fn = parallel.map_batch(_weighted, mesh)
    result = evaluate.measure(nats_fn, jnp.asarray(params)[None], sources["test"], batch_size, mesh)
    assert result.images == 13
    assert result.dims == 12
    assert result.shares == pytest.approx((result.nats / 4, result.nats * 3 / 4))
    assert result.nats == pytest.approx(values.mean(), rel=1e-5)
    assert result.standard_error == pytest.approx(
        math.sqrt(((values - values.mean()) ** 2).sum() / 12 / 13), rel=1e-5
    )


def test_next_batch_is_dispatched_before_a_result_is_waited_for(
    sources: dict[str, Source],
) -> None:
    events = []

    class Result:
        is_fully_addressable = True

        def __init__(self, number: int):
            self.number = number

        def __array__(self, dtype: object = None, copy: object = None) -> np.ndarray:
            events.append(("wait", self.number))
            return np.zeros((5, 1))

    def nats_fn(params: object, images: object) -> Result:
        events.append(("dispatch", len(events)))
        return Result(events[-1][1])

    mesh = parallel.make_mesh(1)
    evaluate.measure(nats_fn, None, sources["test"], 5, mesh)  # type: ignore[arg-type]
    assert [name for name, _ in events] == [
        "dispatch", "dispatch", "wait", "dispatch", "wait", "wait",
    ]  # fmt: skip
    waited = [number for name, number in events if name == "wait"]
    assert waited == [number for name, number in events if name == "dispatch"]


def test_one_image(sources: dict[str, Source]) -> None:
    mesh = parallel.make_mesh(1)
    nats_fn = parallel.map_batch(_weighted, mesh)
    result = evaluate.measure(nats_fn, jnp.ones((1, 2, 3, 2)), sources["validation"], 8, mesh)
    assert result.nats == _images(sources["validation"]).sum()
    assert math.isnan(result.standard_error)


def test_units() -> None:
    result = Evaluation(
        nats=12 * math.log(2), standard_error=0.6 * math.log(2), dims=6, images=1234
    )
    assert result.bits_per_dim == pytest.approx(2)
    assert result.bits_per_dim_error == pytest.approx(0.1)
    assert str(result) == "8.318 ± 0.416 nats, 2.0000 ± 0.1000 bits/dim (1,234 images)"


@pytest.mark.parametrize("counted", [30, 7])
def test_independent_pixels(
    sources: dict[str, Source], monkeypatch: pytest.MonkeyPatch, counted: int
) -> None:
    monkeypatch.setattr(evaluate, "BASELINE_IMAGES", counted)
    train, test = _images(sources["train"])[:counted], _images(sources["test"])
    nats = np.zeros(len(test))
    for position in np.ndindex(2, 3, 2):
        histogram = [np.sum(train[:, *position] == level) + 1 for level in range(3)]
        probabilities = np.array(histogram) / (counted + 3)
        assert probabilities.sum() == pytest.approx(1)
        nats -= np.log(probabilities[test[:, *position]])
    result = evaluate.independent_pixels(sources["train"], sources["test"], batch_size=4)
    assert result.nats == pytest.approx(nats.mean(), rel=1e-12)
    assert result.standard_error == pytest.approx(nats.std(ddof=1) / math.sqrt(13), rel=1e-12)
    assert result.images == 13


@pytest.mark.parametrize("architecture", ["pixel_cnn", "row_lstm"])
def test_loss_is_the_log_probability(architecture: str) -> None:
    """Against a product of conditionals taken from the logits, for any batch."""
    model_config = ModelConfig(architecture, layers=1, features=2, first_kernel=3, head_features=3)
    model = PixelRNN(model_config, (2, 3, 2), 3)
    params = joint.init_parameters(model, jax.random.key(0))
    images = np.random.default_rng(0).integers(3, size=(4, 2, 3, 2), dtype=np.uint8)
    logits = np.asarray(model.apply({"params": params}, jnp.asarray(images, float) - 1), np.float64)
    chances = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    chosen = np.take_along_axis(chances, images[..., None].astype(int), -1)
    nats = joint.nats_by_scale(model)(params, Batch(images))
    np.testing.assert_allclose(nats[:, 0], -np.log(chosen).sum(axis=(1, 2, 3, 4)), rtol=1e-5)


@pytest.fixture
def workdir(tmp_path: Path) -> Path:
    config.write_config(Config(data=DataConfig(name="digits")), tmp_path)
    config.write_image_format(config.ImageFormat((8, 8, 1), 17), tmp_path)
    return tmp_path


def test_workdir_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no config.json"):
        evaluate.evaluate(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()


def test_workdir_without_a_checkpoint(workdir: Path) -> None:
    with pytest.raises(UserError, match="no checkpoint"):
        evaluate.evaluate(workdir)
    assert sorted(path.name for path in workdir.iterdir()) == ["config.json", "images.json"]


def test_images_of_another_format_are_refused(workdir: Path) -> None:
    (workdir / "images.json").unlink()
    config.write_image_format(config.ImageFormat((9, 8, 1), 17), workdir)
    with pytest.raises(UserError, match=r"trained on images of shape \(9, 8, 1\) and 17 levels"):
        evaluate.evaluate(workdir)


def test_unknown_split(workdir: Path) -> None:
    with pytest.raises(UserError, match="tset"):
        evaluate.evaluate(workdir, split="tset")
