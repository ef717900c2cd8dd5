"""Evaluation counts every image once; the baseline, the scores and the comparison by hand."""

import math
from dataclasses import dataclass, replace
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from workdirs import changed

import pixel_rnn_jax as prnn
from pixel_rnn_jax.config import Config, DataConfig
from pixel_rnn_jax.data import open_split
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import evaluate
from pixel_rnn_jax.training.evaluate import Evaluation, compare, open_run_split, score
from pixel_rnn_jax.training.train import train


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

    config = SimpleNamespace(discrete=True)
    image_shape, levels, dims = (2, 3, 2), 3, 12
    scales = tuple(SimpleNamespace(network=SimpleNamespace(image_shape=(h, 3, 2))) for h in (1, 2))

    def parts(self, images):
        return 1

    def nats_by_scale(self, params, images, condition, **options):
        nats = (params * images).sum(axis=(1, 2, 3))
        return jnp.stack([nats / 4, nats * 3 / 4], axis=-1)


MODEL = Weighted()


@pytest.mark.parametrize("devices_used", [1, 2, 8])
@pytest.mark.parametrize("batch_size", [1, 4, 13, 50])
def test_every_image_counts_once(splits, batch_size, devices_used):
    mesh = devices.make_mesh(devices_used)
    params = np.random.default_rng(1).normal(size=(1, 2, 3, 2))
    values = (params * images_of(splits["test"])).sum(axis=(1, 2, 3))
    scores = score(MODEL, params, splits["test"], batch_size=batch_size, mesh=mesh, step=7)
    result = scores.evaluation
    np.testing.assert_allclose(scores.nats, values, rtol=1e-4, atol=1e-5)
    assert (result.images, result.dims, result.step) == (13, 12, 7)
    assert result.nats == pytest.approx(values.mean(), rel=1e-5)
    assert result.shares == pytest.approx({1: result.nats / 4, 2: result.nats * 3 / 4})
    deviation = math.sqrt(((values - values.mean()) ** 2).sum() / 12)
    assert result.standard_error == pytest.approx(deviation / math.sqrt(13), rel=1e-5)


def test_one_image(splits):
    result = score(MODEL, np.ones((1, 2, 3, 2)), splits["validation"], batch_size=8).evaluation
    assert result.nats == images_of(splits["validation"]).sum()
    assert math.isnan(result.standard_error)


def test_next_batch_is_dispatched_before_a_result_is_waited_for(splits, monkeypatch):
    events = []

    def dispatch(params, batch):
        events.append(f"dispatch {(number := len(events))}")
        return number

    def wait(number):
        events.append(f"wait for {number}")
        return np.zeros((5, 2))

    monkeypatch.setattr(evaluate, "_compiled", lambda *_: dispatch)
    monkeypatch.setattr(devices, "local_rows", wait)
    score(MODEL, {}, splits["test"], batch_size=5, mesh=devices.make_mesh(1))
    first, second, third = "dispatch 0", "dispatch 1", "dispatch 3"
    assert events == [first, second, "wait for 0", third, "wait for 1", "wait for 3"]


def test_units():
    nats, error = 12 * math.log(2), 0.6 * math.log(2)
    result = Evaluation(nats, error, dims=6, images=1234, shares={4: nats})
    assert str(result) == "8.318 ± 0.416 nats, 2.0000 ± 0.1000 bits/dim (1,234 images)"
    numbers = {"nats": nats, "standard_error": error, "bits_per_dim": pytest.approx(2)}
    assert result.numbers() == numbers
    # One image has no standard error.
    single = replace(result, images=1, standard_error=math.nan)
    assert str(single) == "8.318 nats, 2.0000 bits/dim (1 image)"
    assert "standard_error" not in single.numbers()
    # Only several scales are recorded one by one.
    heights = {"nats_of_height_2": 1.0, "nats_of_height_4": nats - 1.0}
    assert replace(result, shares={2: 1.0, 4: nats - 1.0}).numbers() == numbers | heights


@pytest.mark.parametrize("counted", [30, 7])
def test_independent_pixels(splits, monkeypatch, counted):
    monkeypatch.setattr(evaluate, "BASELINE_IMAGES", counted)
    images, test = images_of(splits["train"])[:counted], images_of(splits["test"])
    nats = np.zeros(len(test))
    for position in np.ndindex(2, 3, 2):
        histogram = [np.sum(images[:, *position] == level) + 1 for level in range(3)]
        probabilities = np.array(histogram) / (counted + 3)
        assert probabilities.sum() == pytest.approx(1)
        nats -= np.log(probabilities[test[:, *position]])
    result = evaluate.independent_pixels(splits["train"], splits["test"], batch_size=4)
    assert result.nats == pytest.approx(nats.mean(), rel=1e-12)
    assert result.standard_error == pytest.approx(nats.std(ddof=1) / math.sqrt(13), rel=1e-12)
    assert (result.images, result.counted) == (13, counted)


def test_scores_of_several_scales(tmp_path):
    """In the plain form, in which a value may have the terms of several scales."""
    images = np.random.default_rng(0).integers(3, size=(11, 4, 4, 1), dtype=np.uint8)
    np.save(tmp_path / "own.npy", images)
    small = {"layers": 1, "features": 2, "first_kernel": 3, "head_features": 3}
    config = prnn.ModelConfig("pixel_cnn", scales=(2, 4), copy_coarse=False, **small)
    model = prnn.create(config, (4, 4, 1), 3)
    own = prnn.Config(config, prnn.DataConfig(str(tmp_path / "own.npy"), levels=3))
    split = open_split(own, "all")
    expected = -np.asarray(model.log_prob(images, per_value=True))
    shares = jax.jit(model.pixel_rnn.nats_by_scale)(model.params, images)
    shares = np.asarray(shares).mean(0)
    for per_value in False, True:
        scores = score(model.pixel_rnn, model.params, split, batch_size=8, per_value=per_value)
        np.testing.assert_allclose(scores.nats, expected.sum(axis=(1, 2, 3)), rtol=1e-5)
        assert scores.evaluation.shares == pytest.approx({2: shares[0], 4: shares[1]}, rel=1e-5)
    np.testing.assert_allclose(scores.nats_per_value, expected, rtol=1e-4, atol=1e-6)


def test_a_split_that_does_not_exist_is_named(trained_run):
    run = open_run(trained_run[0], devices.local_mesh(1))
    with pytest.raises(UserError, match="tset"):
        open_run_split(run, "tset")


# ---- Discrete and continuous models --------------------------------------------------------------


@pytest.fixture(scope="module")
def workdirs(config, tmp_path_factory):
    """A discrete and a continuous run of two steps."""
    folder = tmp_path_factory.mktemp("runs")
    discrete = changed(changed(config, "train", steps=2), "model", scales=(), num_classes=0)
    train(discrete, folder / "discrete", pictures=False)
    continuous = changed(discrete, "model", output="logistic_mixture", mixtures=2)
    train(continuous, folder / "continuous", pictures=False)
    return folder / "discrete", folder / "continuous"


def test_comparison(workdirs):
    comparison = compare(*workdirs, draws=3)
    discrete, implied, continuous = comparison
    # By construction.
    assert implied.nats == pytest.approx(discrete.nats, rel=1e-6)
    assert implied.standard_error == pytest.approx(discrete.standard_error, rel=1e-6)
    model, density = (prnn.load(workdir) for workdir in workdirs)
    configs = [open_run(workdir, devices.local_mesh(1)).record.config for workdir in workdirs]
    images = open_split(configs[0], "test").batch(range(13)).images
    assert discrete.nats == pytest.approx(float(-model.log_prob(images).mean()), rel=1e-5)
    noisy = [open_split(configs[1], "test", noise=draw).batch(range(13)) for draw in range(3)]
    means = np.mean([-np.asarray(density.log_prob(batch.images)) for batch in noisy], axis=0)
    assert continuous.nats == pytest.approx(means.mean(), rel=1e-5)
    error = means.std(ddof=1) / len(means) ** 0.5
    assert continuous.standard_error == pytest.approx(error, rel=1e-4)


def test_only_a_density_is_evaluated_with_noise(workdirs):
    runs = [open_run(workdir, devices.local_mesh(1)) for workdir in workdirs]
    assert [open_run_split(run, "test").dtype.kind for run in runs] == ["u", "f"]


@pytest.mark.parametrize(
    ("first", "second", "named"), [(1, 1, "--workdir"), (0, 0, "--continuous")]
)
def test_models_of_the_other_kind_are_refused(workdirs, first, second, named):
    with pytest.raises(UserError, match=named):
        compare(workdirs[first], workdirs[second])


def test_models_of_other_images_are_refused(workdirs, trained_run, config, tmp_path):
    with np.load(config.data.name) as arrays:
        images = {split: arrays[split] for split in ("train", "validation", "test")}
    images["test"][-1, -1, -1] = (images["test"][-1, -1, -1] + 1) % 3
    np.savez(tmp_path / "other.npz", **images)
    other = changed(config, "data", name=str(tmp_path / "other.npz"))
    other = changed(changed(other, "train", steps=2), "model", scales=(), num_classes=0)
    continuous = changed(other, "model", output="logistic_mixture", mixtures=2)
    train(continuous, tmp_path / "run", pictures=False)
    for discrete in (workdirs[0], trained_run[0]):  # The other has classes too.
        with pytest.raises(UserError, match="same images"):
            compare(discrete, tmp_path / "run")
