"""The logs of runs that docs keeps, and the figures that docs has of them."""

from pathlib import Path

import pytest

from pixel_rnn_jax import report, shipped

DOCS = Path(__file__).parents[2] / "docs"
LOGS = sorted((DOCS / "logs").iterdir())


@pytest.mark.parametrize("log", LOGS, ids=lambda log: log.name)
def test_docs_have_the_figures_of_a_log(log):
    run = report.read_run(str(log), pixel_map=False)
    result, text = run.result, (DOCS / "results.md").read_text()
    assert run.step == result.steps == run.config.train.steps
    step, validation = run.best_validation
    assert result.step == step
    figures = (
        f"{found.nats:.3f} ± {found.standard_error:.3f}" for found in (result.test, validation)
    )
    assert any(figure in text for figure in figures)
    assert f"logs/{log.name}" in text
    assert run.config.data.data_dir == ""


def test_every_model_of_the_package_has_its_log():
    for name in shipped.names():
        model, log = shipped.FOLDER / name, DOCS / "logs" / name
        assert (model / "result.json").read_bytes() == (log / "result.json").read_bytes()
