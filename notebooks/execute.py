"""Runs the notebook of this folder and stores its outputs in it, without traces of the machine.

    python notebooks/execute.py

It needs the extras `docs` and `dev`, and takes about a minute on two CPU cores.
"""

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).with_name("quickstart.ipynb")


def main() -> None:
    """Replaces the outputs of every cell."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # The run that it trains stays out of here.
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, resources=resources, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # When each cell was run.
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, NOTEBOOK)


if __name__ == "__main__":
    main()
