"""Runs notebooks of this folder and stores their outputs in them, without traces of the machine.

    python notebooks/execute.py
    python notebooks/execute.py ising information

Without names it runs all of them. It needs the extras `docs` and `dev`, and takes about four
minutes on two CPU cores.
"""

import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).parent


def progress(text: str) -> bool:
    """Whether an output is a progress bar, or the blanks that erase one."""
    return "%|" in text or not text.strip()


def execute(path: Path) -> None:
    """Replaces the outputs of every cell."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:  # The runs that it trains stay out of here.
        resources = {"metadata": {"path": folder}}
        NotebookClient(notebook, resources=resources, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata = {}  # When each cell was run.
        if cell.cell_type == "code":  # Progress bars, and the blanks that erase them.
            cell.outputs = [out for out in cell.outputs if not progress(out.get("text", "-"))]
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    nbformat.write(notebook, path)


def main(names: list[str]) -> None:
    """Runs the notebooks of these names, or all."""
    known = {path.stem: path for path in sorted(FOLDER.glob("*.ipynb"))}
    names = [Path(name).stem for name in names] or [*known]
    if unknown := [name for name in names if name not in known]:
        sys.exit(f"no notebook {', '.join(unknown)}; there are {', '.join(known)}")
    for name in names:
        print(known[name].name, flush=True)
        execute(known[name])


if __name__ == "__main__":
    main(sys.argv[1:])
