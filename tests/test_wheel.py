"""What is in the wheel: all of the package, its configs and types, and nothing beside it."""

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

import pixel_rnn_jax as prnn

ROOT = Path(__file__).parents[1]
SOURCES = ("setup.py", "pyproject.toml", "README.md", "LICENSE", "pixel_rnn_jax", "configs")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from a copy, since a build leaves files and takes up those of an earlier one."""
    folder = tmp_path_factory.mktemp("wheel")
    (folder / "source").mkdir()
    for name in SOURCES:
        source, copy = ROOT / name, folder / "source" / name
        if source.is_dir():
            shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, copy)
    build = ["wheel", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    done = subprocess.run(
        [sys.executable, "-m", "pip", *build, "--wheel-dir", folder, folder / "source"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (file,) = folder.glob("*.whl")
    return zipfile.ZipFile(file)


def test_files(wheel: zipfile.ZipFile) -> None:
    package = {
        str(file.relative_to(ROOT))
        for file in (ROOT / "pixel_rnn_jax").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    configs = {f"pixel_rnn_jax/configs/{file.name}" for file in (ROOT / "configs").glob("*.py")}
    assert "pixel_rnn_jax/py.typed" in package and "pixel_rnn_jax/configs/digits.py" in configs
    installed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert installed == package | configs


def test_metadata(wheel: zipfile.ZipFile) -> None:
    folder = f"pixel_rnn_jax-{prnn.__version__}.dist-info"
    found = message_from_bytes(wheel.read(f"{folder}/METADATA"))
    values = found["Name"], found["Version"], found["License-File"]
    assert values == ("pixel-rnn-jax", prnn.__version__, "LICENSE")
    assert wheel.read(f"{folder}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    entry_points = wheel.read(f"{folder}/entry_points.txt").decode()
    assert "pixel-rnn-jax = pixel_rnn_jax.main:run" in entry_points
