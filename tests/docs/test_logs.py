"""The lines of runs that docs keeps, and the figures that docs has of them."""

import json
from pathlib import Path

from pixel_rnn_jax.runs.config import Config, with_flags
from pixel_rnn_jax.system import files

DOCS = Path(__file__).parents[2] / "docs"
RUNS = [json.loads(line) for line in (DOCS / "logs" / "runs.jsonl").read_text().splitlines()]


def test_runs_have_a_config_of_today_and_an_end() -> None:
    for run in RUNS:
        words = [f"--config.{name}={value}" for name, value in run["config"].items()]
        config = with_flags(Config(), words)
        assert run["step"] <= config.train.steps and run["validation"]["nats"] > 0, run["name"]
        assert "data.data_dir" not in run["config"], run["name"]
        assert run.get("test", {"images": 1000})["images"] > 100, run["name"]
        assert 60 * (run.get("minutes_shared") or 0) < run["seconds"], run["name"]


def test_parameters_are_of_a_run() -> None:
    names = {run["name"] for run in RUNS}
    assert names.issuperset(file.stem for file in (DOCS / "logs").glob("*.safetensors"))


def test_every_bundled_model_has_its_run() -> None:
    runs = {run["name"]: run for run in RUNS}
    for name in files.bundled_names():
        result = json.loads((files.BUNDLED / name / "result.json").read_text())
        assert runs[name]["test"] == result["test"] and runs[name]["step"] == result["step"]
        figure = f"{result['test']['nats']:.3f} ± {result['test']['standard_error']:.3f}"
        pages = DOCS / "results.md", DOCS.parent / "README.md"
        assert any(figure in page.read_text() for page in pages), name
