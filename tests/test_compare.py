"""Discrete and continuous likelihoods of one set, in one unit."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data, evaluate
from pixel_rnn_jax.compare import compare
from pixel_rnn_jax.config import Config, DataConfig, ModelConfig, TrainConfig
from pixel_rnn_jax.train import train


@pytest.fixture(scope="module")
def workdirs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A discrete and a continuous run of two steps."""
    folder = tmp_path_factory.mktemp("runs")
    images = np.random.default_rng(0).integers(5, size=(60, 3, 4, 1), dtype=np.uint8)
    np.savez(folder / "images.npz", train=images[:30], validation=images[30:40], test=images[40:])
    model = ModelConfig("pixel_cnn", layers=1, features=3, head_features=4)
    config = Config(
        model=model,
        data=DataConfig(name=str(folder / "images.npz"), levels=5),
        train=TrainConfig(steps=2, batch_size=8),
    )
    train(config, folder / "discrete")
    density = replace(model, output="continuous", mixtures=2)
    train(replace(config, model=density), folder / "continuous")
    return folder / "discrete", folder / "continuous"


def test_comparison(workdirs: tuple[Path, Path], capsys: Any) -> None:
    found = compare(*workdirs, draws=3)
    # By construction.
    assert found.implied.nats == pytest.approx(found.discrete.nats, rel=1e-6)
    assert found.implied.standard_error == pytest.approx(found.discrete.standard_error, rel=1e-6)
    model, density = (prnn.load(workdir) for workdir in workdirs)
    config = DataConfig(name=str(workdirs[0].parent / "images.npz"), levels=5)
    images = data.open_source(config, "test").__getitems__(range(20))
    assert found.discrete.nats == pytest.approx(-model.log_prob(images).mean(), rel=1e-5)
    sources = [data.open_source(config, "test", noise=draw) for draw in range(3)]
    draws = np.mean([-density.log_prob(each.__getitems__(range(20))) for each in sources], axis=0)
    assert found.continuous.nats == pytest.approx(draws.mean(), rel=1e-5)
    error = draws.std(ddof=1) / 20**0.5
    assert found.continuous.standard_error == pytest.approx(error, rel=1e-4)
    lines = capsys.readouterr().out.splitlines()[-3:]
    assert [line.split()[0].strip(",") for line in lines] == ["discrete", "density", "continuous"]
    assert all("bits/dim" in line for line in lines)


def test_evaluation_of_a_density_says_what_it_is(workdirs: tuple[Path, Path], capsys: Any) -> None:
    evaluate.evaluate(workdirs[1])
    assert "of a density at values with noise added: an upper bound" in capsys.readouterr().out
    names = {path.name.split("-")[0] for path in (workdirs[1] / "pictures").iterdir()}
    assert names == {"samples"}  # A density completes no images.


def test_what_does_not_compare_is_refused(workdirs: tuple[Path, Path], tmp_path: Path) -> None:
    discrete, continuous = workdirs
    with pytest.raises(prnn.UserError, match="holds a continuous model: give --workdir"):
        compare(continuous, continuous)
    with pytest.raises(prnn.UserError, match="holds a discrete model: give --continuous"):
        compare(discrete, discrete)
    with pytest.raises(prnn.UserError, match="dequantize must be at least 1, got 0"):
        compare(discrete, continuous, draws=0)
    model = ModelConfig("pixel_cnn", layers=1, features=1, head_features=1, output="continuous")
    train(Config(model=model, train=TrainConfig(steps=1)), tmp_path)
    with pytest.raises(prnn.UserError, match="do not have the same images"):
        compare(discrete, tmp_path)
