"""What training refuses before it has done any work."""

from dataclasses import replace

import numpy as np
import pytest
from etils import epath
from workdirs import changed

from pixel_rnn_jax import data
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs import lock
from pixel_rnn_jax.runs.workdir import write_config
from pixel_rnn_jax.training.train import train


def test_other_config_is_refused_before_any_work(config, tmp_path, monkeypatch):
    write_config(config, tmp_path)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    before = (tmp_path / "config.json").read_bytes()
    monkeypatch.setattr(data, "open_source", lambda *_: pytest.fail("worked"))
    other = replace(changed(config, "optimizer", learning_rate=1.0), seed=4)
    with pytest.raises(UserError, match=r"optimizer\.learning_rate from 0.01 to 1.0, seed from 3"):
        train(other, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


def test_a_workdir_in_use_is_refused_before_a_file_is_touched(config, tmp_path):
    with lock.hold(epath.Path(tmp_path)):
        with pytest.raises(UserError, match=f"^{tmp_path} is in use: process "):
            train(config, tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize(
    ("name", "workdir", "message"),
    [
        ("checkpoints", "", "has checkpoints but no config.json"),
        ("metrics.jsonl", "", "has metrics.jsonl but no config.json"),
        ("result.json", "", "has result.json but no config.json"),
        ("data.json", "", "has data.json but no config.json"),
        ("images.json", "", "has images.json but no config.json"),
        ("images.json/", "", "has images.json but no config.json"),
        ("lock", "", "lock is not the lock of a training"),
        ("file", "file", "file cannot be written to: "),
    ],
)
def test_workdir_of_something_else_is_refused(config, tmp_path, name, workdir, message):
    path = tmp_path / name / "inner" if name.endswith("/") else tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_text("precious")
    with pytest.raises(UserError, match=message):
        train(config, tmp_path / workdir)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == [path]
    assert path.read_text() == "precious"


def test_checkpoints_behind_a_link_that_leads_nowhere_are_waited_for(config, tmp_path):
    write_config(config, tmp_path)
    (tmp_path / "metrics.jsonl").write_text("")
    (tmp_path / "checkpoints").symlink_to("gone")
    before = {path: path.read_bytes() for path in tmp_path.glob("*.*")}
    with pytest.raises(UserError, match="checkpoints is a link to gone, which is not there"):
        train(config, tmp_path)
    assert before == {path: path.read_bytes() for path in tmp_path.glob("*.*")}


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_wrong_values_of_any_split_are_found_before_anything_is_saved(config, tmp_path, split):
    splits = {name: np.zeros((40, 4, 4, 1), np.uint8) for name in ("train", "validation", "test")}
    splits[split][-1] = 9
    np.savez(tmp_path / "images.npz", **splits)
    config = changed(config, "data", name=str(tmp_path / "images.npz"), levels=9)
    with pytest.raises(UserError, match=f"record 39 of .* '{split}' .*has the value 9"):
        train(changed(config, "model", num_classes=0), tmp_path / "run")
    assert not list(tmp_path.glob("run/checkpoints/*"))
