"""What is written down twice is the same in both places."""

import re
from pathlib import Path

import pixel_rnn_jax as prnn

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_version() -> None:
    version = re.escape(prnn.__version__)
    assert re.search(rf"^version: {version}$", text("CITATION.cff"), re.MULTILINE)
    assert re.search(rf"^## .*\b{version}\b", text("CHANGELOG.md"), re.MULTILINE)
