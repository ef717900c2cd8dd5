"""Trained models that come with the package, each a folder with a card: see docs/models.md."""

import os
from pathlib import Path

FOLDER = Path(__file__).parent / "weights"
"""A folder for each model: the exported file, the config and the result of its run, and its card.

`slice.npz` in it has test images, their nats and their condition.
"""


def names() -> list[str]:
    """Returns the names of the models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def place(path: str | os.PathLike[str]) -> str:
    """Returns the folder of the model of this name; any other path as it is."""
    text = os.fspath(path)
    return str(FOLDER / text) if text in names() else text
