"""Trained models that come with the package, each a folder with a card: docs/generation.md."""

from pathlib import Path

FOLDER = Path(__file__).resolve().parent / "weights"
"""A folder for each model: the exported file, the identity and the result of its run, and its card.

`slice.npz` in it has test images, their nats and their condition.
"""
FILE = "model.safetensors"
"""The exported file in each."""


def names() -> list[str]:
    """Returns the names of the models."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{FILE}"))


def path(name: str) -> Path:
    """Returns the folder of the model of this name."""
    return FOLDER / name
