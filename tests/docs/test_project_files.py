"""What is written down twice is the same in both places."""

import re
import tomllib
from pathlib import Path

import yaml

import pixel_rnn_jax as prnn

ROOT = Path(__file__).parents[2]


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_version() -> None:
    assert yaml.safe_load(text("CITATION.cff"))["version"] == prnn.__version__
    version = re.escape(prnn.__version__)
    assert re.search(rf"^## .*\b{version}\b", text("CHANGELOG.md"), re.MULTILINE)


def test_pre_commit_has_the_formatter_of_the_tests() -> None:
    ruff = re.search(r'"(ruff[^"]*)"', text("setup.py"))
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert ruff and [hook["additional_dependencies"] for hook in hooks] == 2 * [[ruff[1]]]


def test_oldest_python() -> None:
    """Of the package, of the linter, and of the workflow."""
    oldest = re.search(r'python_requires=">=(.*)"', text("setup.py"))
    matrix = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]
    target = tomllib.loads(text("pyproject.toml"))["tool"]["ruff"]["target-version"]
    assert oldest and matrix["python"][0] == oldest[1]
    assert target == f"py{oldest[1].replace('.', '')}"


def test_readme_is_short_and_leads_to_the_other_files() -> None:
    assert len(text("README.md").splitlines()) <= 170
    for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LICENSE", "CITATION.cff"):
        assert f"({name})" in text("README.md")
