"""The notebook runs from the first cell to the last, and holds nothing but what was written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "quickstart.ipynb"


def _code_cells() -> list[dict]:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_no_outputs_are_stored() -> None:
    for cell in _code_cells():
        assert cell["outputs"] == [] and cell["execution_count"] is None


@pytest.mark.slow
def test_every_cell_runs(tmp_path: Path) -> None:
    """In a process of its own: a notebook has neither the devices nor the settings of the tests."""
    cells = ["".join(cell["source"]) for cell in _code_cells()]
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
    assert len(list(tmp_path.glob("figure*.png"))) == 6
