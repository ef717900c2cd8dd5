"""The notebook runs from the first cell to the last, and has its outputs and nothing else."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"
FIGURES = 6


ALL_CELLS = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
CELLS = [cell for cell in ALL_CELLS if cell["cell_type"] == "code"]
OUTPUTS = [output for cell in CELLS for output in cell["outputs"]]
TEXT = "".join(line for output in OUTPUTS for line in output.get("text", []))


def _test_nats(text: str) -> float:
    found = re.search(r"^test, step 1500: ([\d.]+) ", text, re.MULTILINE)
    assert found, text
    return float(found[1])


def test_outputs_are_stored_as_one_run_has_written_them() -> None:
    assert [cell["execution_count"] for cell in CELLS] == [*range(1, len(CELLS) + 1)]
    assert sum("image/png" in output.get("data", {}) for output in OUTPUTS) == FIGURES


def test_outputs_have_no_traces_of_a_machine() -> None:
    """No warnings, no errors, no absolute paths, no times at which cells were run."""
    for output in OUTPUTS:
        assert output.get("name", "stdout") == "stdout"
        assert output["output_type"] in ("stream", "display_data", "execute_result")
    assert not re.search(r"(^|\s)/\w|Warning", TEXT)
    assert not any(cell["metadata"] for cell in CELLS)
    assert NOTEBOOK.stat().st_size < 500_000


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path) -> None:
    """In a process of its own: a notebook has neither the devices nor the settings of the tests."""
    cells = ["".join(cell["source"]) for cell in CELLS]
    # Saves each figure, as a notebook shows it.
    save = "for n in plt.get_fignums(): plt.figure(n).savefig(f'figure{n}.png')"
    program = tmp_path / "quickstart.py"
    program.write_text("\n\n".join([*cells, save]), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-W", "error", program],
        cwd=tmp_path,
        env=os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(NOTEBOOK.parents[1])},
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr
    assert len(list(tmp_path.glob("figure*.png"))) == FIGURES
    # What is stored is what the code gives, but for rounding on another machine.
    assert _test_nats(done.stdout) == pytest.approx(_test_nats(TEXT), abs=1)
