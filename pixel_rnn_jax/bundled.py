"""Trained models that come with the package, each a folder with a card: see docs/models.md."""

import os
from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "weights"
"""A folder for each model: the exported file, the config and the result of its run, and its card.

`slice.npz` in it has test images, their nats and their condition.
"""
FILE = "model.safetensors"
"""The exported file in each."""


def names() -> list[str]:
    """Returns the names of the models."""
    return sorted(path.parent.name for path in FOLDER.glob("*/config.json"))


def place(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Returns the folder of the model of this name, a string; any other path as it is."""
    return str(FOLDER / path) if isinstance(path, str) and path in names() else path


def is_place(path: str | os.PathLike[str]) -> bool:
    """Whether a path is the folder of a model: a workdir may have a file of the same name."""
    return Path(path).resolve().parent == FOLDER
