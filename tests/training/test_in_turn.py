"""Scales that are trained one after another, without a stop and with one."""

import numpy as np
import pytest
from workdirs import changed, differences, records_of, state_of

from pixel_rnn_jax.training.train import train

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture(scope="module")
def config_in_turn(config):
    """Three steps for each scale, and intervals of two."""
    config = changed(config, "train", in_turn=True, log_every=2)
    return changed(config, "optimizer", name="muon", schedule="cosine")


@pytest.fixture(scope="module")
def in_turn(config_in_turn, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("in_turn")
    return workdir, train(config_in_turn, workdir)


def test_records(in_turn):
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
def test_stopped_run_ends_as_the_other(config_in_turn, in_turn, tmp_path, stop_at, step):
    stop_at(step, config_in_turn, tmp_path)
    if step == 4:
        check_first_step_of_second_scale(tmp_path, in_turn[0])
    assert train(config_in_turn, tmp_path).test == in_turn[1].test
    assert differences(tmp_path, in_turn[0]) == set()


def check_first_step_of_second_scale(workdir, straight):
    """A scale changes in its turn alone, and its average begins with it."""
    before, after, last = state_of(workdir, 2), state_of(workdir, 4), state_of(straight, 6)
    names = [name for name in after if name.startswith(("params/", "ema/"))]
    moved = {name.split("/")[1] for name in names if (last[name] != after[name]).any()}
    assert moved == {"scale_1"}
    leaves = [name.removeprefix("ema/") for name in names if name.startswith("ema/scale_1/")]
    for leaf in leaves:
        start, first = before[f"params/{leaf}"], after[f"params/{leaf}"]
        np.testing.assert_array_equal(before[f"ema/{leaf}"], start)
        expected = start * 2 / 11 + first * 9 / 11
        np.testing.assert_allclose(after[f"ema/{leaf}"], expected, rtol=1e-5, atol=1e-7)
