"""Runs notebooks of this folder and stores their outputs in them, without traces of the machine.

    python notebooks/execute.py
    python notebooks/execute.py ising information

Without names it runs all of them. It needs the extras `docs` and `dev`, and takes about 40
minutes on two CPU cores, of which `ising` has 21 and `heisenberg` at most 14.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent
QUIET = {"NETKET_NO_TIPS": "1", "PYTHONWARNINGS": "ignore:IProgress"}  # Of tqdm in a notebook.


def execute(path: Path) -> None:
    """Replaces the outputs of every cell."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # The runs that it trains stay out of here.
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, resources=resources, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # When each cell was run.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


def main(names: list[str]) -> None:
    """Runs the notebooks of these names, or all."""
    os.environ.update(QUIET)
    for name in names or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        print(name, flush=True)
        execute(FOLDER / f"{name}.ipynb")


if __name__ == "__main__":
    main(sys.argv[1:])
