"""Scales that are trained one after another, without a stop and with one."""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from workdirs import changed, differences, records_of, state_of

from pixel_rnn_jax.config import Config
from pixel_rnn_jax.training.train import TrainResult, train


@pytest.fixture(scope="module", autouse=True)
def no_pictures() -> Iterator[None]:
    """What would draw them takes long to compile."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pixel_rnn_jax.training.train.draw_previews", lambda *_: {})
        yield


@pytest.fixture(scope="module")
def config_in_turn(config: Config) -> Config:
    """Three steps for each scale, and intervals of two."""
    config = changed(config, "train", in_turn=True, log_every=2)
    return changed(config, "optimizer", schedule="cosine")


@pytest.fixture(scope="module")
def in_turn(
    config_in_turn: Config, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, TrainResult]:
    workdir = tmp_path_factory.mktemp("in_turn")
    return workdir, train(config_in_turn, workdir)


def test_records(in_turn: tuple[Path, TrainResult]) -> None:
    workdir, result = in_turn
    assert list(result.test.shares) == [2, 4]
    assert sum(result.test.shares.values()) == pytest.approx(result.test.nats)
    records = {record["step"]: record for record in records_of(workdir)}
    # An interval ends with a turn.
    assert list(records) == [2, 3, 4, 5, 6]
    for step in (5, 6):
        shares = (records[step][f"validation/nats_of_height_{height}"] for height in (2, 4))
        assert sum(shares) == pytest.approx(records[step]["validation/nats"])
    # The loss of one scale, in bits per value that it gives.
    for step, height, dims in ((2, 2, 4), (3, 2, 4), (4, 4, 12), (6, 4, 12)):
        names = {name for name in records[step] if name.startswith(("train/nats", "train/bits"))}
        nats, bits = (f"train/{unit}_of_height_{height}" for unit in ("nats", "bits_per_dim"))
        assert names == {nats, bits}
        assert records[step][nats] == pytest.approx(dims * np.log(3), rel=0.2)
        assert records[step][bits] == pytest.approx(records[step][nats] / dims / np.log(2))
    # Each turn has a schedule of its own: (1 + cos(pi n / 3)) / 2 of the rate after n steps.
    rates = [records[step]["train/learning_rate"] for step in (2, 3, 4, 6)]
    assert rates == pytest.approx([0.0075, 0.0025, 0.01, 0.0025])


@pytest.mark.parametrize("step", [3, 4, 5])  # The second scale begins with step 4.
def test_stopped_run_ends_as_the_other(
    config_in_turn: Config,
    in_turn: tuple[Path, TrainResult],
    tmp_path: Path,
    stop_at: Callable[..., None],
    step: int,
) -> None:
    stop_at(step, config_in_turn, tmp_path)
    if step == 4:
        check_first_step_of_second_scale(tmp_path, in_turn[0])
    assert train(config_in_turn, tmp_path).test == in_turn[1].test
    assert differences(tmp_path, in_turn[0]) == []


def check_first_step_of_second_scale(workdir: Path, straight: Path) -> None:
    """A scale changes in its turn alone, and its average begins with it."""
    before, after, last = state_of(workdir, 2), state_of(workdir, 4), state_of(straight, 6)
    kept: set[str] = set()
    moved: set[str] = set()
    for name, value in after.items():
        kind, _, leaf = name.partition("/")
        if kind not in ("params", "ema"):
            continue
        (moved if (last[name] != value).any() else kept).add(leaf.split("/")[0])
        if leaf.startswith("scale_1/"):
            start, first = before[f"params/{leaf}"], after[f"params/{leaf}"]
            np.testing.assert_array_equal(before[name], start)
            if kind == "ema":
                expected = start * 2 / 11 + first * 9 / 11
                np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-7)
    assert moved == {"scale_1"} and "scale_0" in kept
