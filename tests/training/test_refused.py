"""What training refuses before it has done any work."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from workdirs import changed

from pixel_rnn_jax import data
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.workdir import write_config
from pixel_rnn_jax.training.train import train


def test_other_config_is_refused_before_any_work(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_config(config, tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    monkeypatch.setattr(data, "open_source", lambda *_: pytest.fail("worked"))
    other = replace(changed(config, "optimizer", learning_rate=1.0), seed=4)
    with pytest.raises(UserError, match=r"optimizer\.learning_rate from 0.01 to 1.0, seed from 3"):
        train(other, tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("name", ["checkpoints", "metrics.jsonl"])
def test_workdir_of_something_else_is_refused(config: Config, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("precious")
    with pytest.raises(UserError, match=f"has {name} but no config.json"):
        train(config, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "precious"


def test_workdir_that_is_a_file(config: Config, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file cannot be written to: "):
        train(config, tmp_path / "file")


@pytest.mark.parametrize(
    ("group", "fields", "message"),
    [
        ("data", {"name": "missing.npy"}, "missing.npy"),
        ("data", {"name": "other.npz"}, r"the test images have shape \(5, 4, 1\)"),
        ("data", {"name": "unlabelled.npz"}, "has no labels: model.classes must be 0"),
        ("train", {"batch_size": 16, "micro_batches": 3}, "train.micro_batches must divide"),
    ],
)
def test_mistake_leaves_no_trace(
    config: Config, tmp_path: Path, group: str, fields: dict[str, Any], message: str
) -> None:
    """It can be put right with the same workdir."""
    for name, height in (("other", 5), ("unlabelled", 4)):
        sizes = {"train": 4, "validation": 4, "test": height}
        splits = {split: np.zeros((6, size, 4, 1), np.uint8) for split, size in sizes.items()}
        labels = {f"{split}_labels": np.zeros(6, int) for split in sizes if name == "other"}
        np.savez(tmp_path / f"{name}.npz", allow_pickle=False, **splits, **labels)
    if "name" in fields:
        fields = {"name": str(tmp_path / fields["name"])}
    with pytest.raises(UserError, match=message):
        train(changed(config, group, **fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()
