"""Discrete and continuous likelihoods of one set, in one unit."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from workdirs import changed

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli import evaluate as verb
from pixel_rnn_jax.data import open_source
from pixel_rnn_jax.runs import workdir as workdir_lib
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.workdir import open_run, read_config
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import compare as compare_lib
from pixel_rnn_jax.training.compare import compare
from pixel_rnn_jax.training.evaluate import open_split
from pixel_rnn_jax.training.train import train

IMAGES = range(13)
"""Of the test split."""


@pytest.fixture(scope="module")
def workdirs(config, tmp_path_factory):
    """A discrete and a continuous run of two steps."""
    folder = tmp_path_factory.mktemp("runs")
    discrete = changed(changed(config, "train", steps=2), "model", scales=(), num_classes=0)
    train(discrete, folder / "discrete")
    train(changed(discrete, "model", output="logistic_mixture", mixtures=2), folder / "continuous")
    return folder / "discrete", folder / "continuous"


def test_comparison(workdirs):
    found = compare(*workdirs, draws=3)
    # By construction.
    assert found.implied.nats == pytest.approx(found.discrete.nats, rel=1e-6)
    assert found.implied.standard_error == pytest.approx(found.discrete.standard_error, rel=1e-6)
    model, density = (prnn.load(workdir) for workdir in workdirs)
    images = open_source(read_config(workdirs[0]), "test").batch(IMAGES).images
    assert found.discrete.nats == pytest.approx(float(-model.log_prob(images).mean()), rel=1e-5)
    config = read_config(workdirs[1])
    sources = [open_source(config, "test", noise=draw) for draw in range(3)]
    nats = [-np.asarray(density.log_prob(source.batch(IMAGES).images)) for source in sources]
    means = np.mean(nats, axis=0)
    assert found.continuous.nats == pytest.approx(means.mean(), rel=1e-5)
    error = means.std(ddof=1) / len(means) ** 0.5
    assert found.continuous.standard_error == pytest.approx(error, rel=1e-4)


def test_only_a_density_is_evaluated_with_noise(workdirs):
    mesh = devices.make_mesh(1)
    kinds = [open_split(open_run(workdir, mesh), "test").dtype.kind for workdir in workdirs]
    assert kinds == ["u", "f"]


def test_what_is_printed(workdirs, capsys, monkeypatch):
    monkeypatch.setattr(verb, "join", lambda _: None)

    def lines(workdir, dequantize=None, continuous=None):
        flags = {"workdir": workdir, "split": "test", "pixel_map": None}
        flags |= {"images": None, "data": None, "out": None, "per_value": False}
        verb.evaluate(SimpleNamespace(**flags, dequantize=dequantize, continuous=continuous))
        return capsys.readouterr().out.splitlines()

    discrete, continuous = workdirs
    found = compare(discrete, continuous, draws=3)
    assert lines(discrete, 3, continuous) == [
        f"discrete, test, step 2: {found.discrete}",
        f"density that it implies, 3 draws of noise: {found.implied}",
        f"continuous, step 2, 3 draws of noise: {found.continuous}",
    ]
    assert lines(discrete) == [f"test, step 2: {found.discrete}"]
    (line,) = lines(continuous)
    assert "of a density at values with noise added: an upper bound" in line
    drawn = {path.name for path in (continuous / "pictures").iterdir()}
    assert drawn == {"completions-2.png", "samples-2.png"}


@pytest.mark.parametrize(
    ("first", "second", "draws", "message"),
    [
        (1, 1, 1, "holds a continuous model: workdir .--workdir."),
        (0, 0, 1, "holds a model of model.output=softmax: continuous .--continuous."),
        (0, 1, 0, "draws .--dequantize. must be at least 1, got 0"),
    ],
)
def test_what_does_not_compare_is_refused(workdirs, first, second, draws, message):
    with pytest.raises(prnn.UserError, match=message):
        compare(workdirs[first], workdirs[second], draws=draws)


def test_other_conditions_are_refused(workdirs, monkeypatch):
    """A discrete model with classes, which a changed config stands for."""
    discrete, continuous = workdirs

    def opened(workdir, mesh):
        run = open_run(workdir, mesh)
        given = changed(run.config, "model", num_classes=3)
        return dataclasses.replace(run, config=given) if workdir == discrete else run

    monkeypatch.setattr(compare_lib, "open_run", opened)
    with pytest.raises(
        prnn.UserError, match=f"{discrete} takes classes from 0 to 2 .*no condition"
    ):
        compare(discrete, continuous)


@pytest.mark.parametrize("difference", ["a value", "the number", "the shape"])
def test_other_images_are_refused(workdirs, tmp_path, difference):
    """A continuous model of another set, which a changed config stands for."""
    discrete, continuous = workdirs
    config = read_config(continuous)
    with np.load(config.data.name) as arrays:
        splits = {split: arrays[split] for split in ("train", "validation", "test")}
    if difference == "a value":
        splits["test"][-1, -1, -1] = (splits["test"][-1, -1, -1] + 1) % 3
    elif difference == "the number":
        splits["test"] = splits["test"][:-1]
    shape = (2, 8, 1) if difference == "the shape" else (4, 4, 1)
    splits["test"] = splits["test"].reshape(-1, *shape)
    np.savez(tmp_path / "other.npz", allow_pickle=False, **splits)
    shutil.copytree(continuous, tmp_path / "run")
    (tmp_path / "run" / "images.json").unlink()
    other = changed(config, "data", name=str(tmp_path / "other.npz"))
    workdir_lib.begin_run(tmp_path / "run", other, ImageFormat(shape, 3))
    with pytest.raises(prnn.UserError, match="do not have the same images in this split"):
        compare(discrete, tmp_path / "run")
