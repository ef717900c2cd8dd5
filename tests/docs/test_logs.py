"""The logs of runs that docs keeps, and the figures that docs has of them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pixel_rnn_jax.system import files
from pixel_rnn_jax.training.config import Config, with_flags

DOCS = Path(__file__).parents[2] / "docs"
LOGS = sorted(path for path in (DOCS / "logs").iterdir() if path.is_dir())


def figure(likelihood: dict[str, Any]) -> str:
    return f"{likelihood['nats']:.3f} ± {likelihood['standard_error']:.3f}"


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_docs_have_the_figures_of_a_log(log: Path) -> None:
    config = json.loads((log / "config.json").read_text())
    result = json.loads((log / "result.json").read_text())
    records = [json.loads(line) for line in (log / "metrics.jsonl").read_text().splitlines()]
    validations = {r["step"]: r["validation/nats"] for r in records if "validation/nats" in r}
    assert result["step"] == min(validations, key=validations.__getitem__)
    assert result["steps"] == config["train"]["steps"]
    assert config["data"]["data_dir"] == ""  # No path of the machine.
    test = figure(result["test"]) if result["test"]["images"] > 10 else "–"
    row = f"| `{log.name}` | {result['steps']:,} | {figure(result['validation'])} | {test} |"
    assert row in (DOCS / "logs" / "README.md").read_text()


def test_other_runs_have_a_config_of_today_and_an_end() -> None:
    for line in (DOCS / "logs" / "runs.jsonl").read_text().splitlines():
        run = json.loads(line)
        config = with_flags(Config(), [f"--config.{n}={v}" for n, v in run["config"].items()])
        assert run["step"] <= config.train.steps and run["validation"]["nats"] > 0, run["name"]
        assert "data.data_dir" not in run["config"], run["name"]


def test_every_bundled_model_has_its_log() -> None:
    for name in files.bundled_names():
        result = json.loads(((files.BUNDLED / name) / "result.json").read_text())
        log = json.loads((DOCS / "logs" / name / "result.json").read_text())
        assert result == log
        assert figure(log["test"]) in (DOCS / "results.md").read_text()
