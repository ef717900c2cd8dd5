"""Mistakes of an installation end in a sentence with the command that repairs it."""

import ast
import importlib.metadata
import logging
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from jax._src import hardware_utils, xla_bridge

import pixel_rnn_jax as prnn
from pixel_rnn_jax import installation
from pixel_rnn_jax.cli import parse
from pixel_rnn_jax.main import main

ROOT = Path(__file__).parents[1]
INIT = ROOT / "pixel_rnn_jax" / "__init__.py"
VERSIONS = {"jax": "0.10.2", "flax": "0.12.8", "tqdm": "5.0.0rc1", "orbax-checkpoint": "0.12"}
REQUIRED = [
    "jax>=0.10",
    "flax>=0.12.8",
    "tqdm>=4.67",
    "orbax-checkpoint<1,>=0.12",
    'gcsfs>=2026.4; extra == "gcs"',
]


@pytest.fixture
def installed(monkeypatch):
    """The packages that are installed, by their versions."""
    versions = dict(VERSIONS)

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "requires", lambda name: REQUIRED)
    monkeypatch.setattr(importlib.metadata, "version", version)
    return versions


def test_the_packages_of_the_tests_fit():
    assert "flax>=0.12.8" in importlib.metadata.requires("pixel-rnn-jax")
    installation.check()


def test_packages_that_are_missing_or_too_old(installed):
    installation.check()
    installed["flax"] = "0.12.7"
    del installed["tqdm"]
    with pytest.raises(prnn.UserError) as raised:
        installation.check()
    assert str(raised.value) == (
        "the installation does not fit (flax 0.12.7 is too old; tqdm is missing): pip install "
        "'flax>=0.12.8' 'tqdm>=4.67'"
    )


def test_a_package_that_is_too_new(installed):
    installed["orbax-checkpoint"] = "1.0"
    with pytest.raises(prnn.UserError) as raised:
        installation.check()
    assert str(raised.value) == (
        "the installation does not fit (orbax-checkpoint 1.0 is too new): pip install "
        "'orbax-checkpoint<1,>=0.12'"
    )


def test_the_program_says_so(installed, capsys, monkeypatch):
    """Before it imports JAX, or where an import fails."""
    installed["jax"] = "0.9.2"
    assert main(["info", "x.prnn"]) == 2
    said = "error: the installation does not fit (jax 0.9.2 is too old): pip install 'jax>=0.10'\n"
    assert capsys.readouterr().err == said
    monkeypatch.setattr(parse, "parse", Mock(side_effect=ImportError("no name x in jax")))
    assert main(["info", "x.prnn"]) == 2
    assert capsys.readouterr().err == said
    installed["jax"] = "0.10"
    with pytest.raises(ImportError, match="no name x in jax"):
        main(["info", "x.prnn"])


@pytest.mark.parametrize(
    "patch, message",
    [
        (lambda patch: patch.setattr(sys, "version_info", (3, 10)), "needs Python 3.11 or later"),
        (lambda patch: patch.setitem(sys.modules, "etils", None), "etils to begin with: `pip inst"),
    ],
)
def test_an_old_python_or_an_empty_environment(patch, message, monkeypatch, capsys):
    code = compile(INIT.read_bytes(), INIT, "exec")
    with monkeypatch.context() as changed:
        patch(changed)
        with pytest.raises(ImportError, match=message):
            exec(code, {})
        changed.setattr(sys, "argv", ["-m"])  # As Python has it while it looks for the module.
        with pytest.raises(SystemExit, match="2"):
            exec(code, {})
    error = capsys.readouterr().err
    assert error.startswith("error: pixel-rnn-jax ") and message in error


def test_an_old_python_can_read_what_refuses_it():
    ast.parse(INIT.read_text(encoding="ascii"), feature_version=(3, 4))


@pytest.mark.parametrize("extra", ["cuda", "tpu"])
def test_jax_without_support_for_the_device_of_the_machine(extra, monkeypatch, caplog):
    monkeypatch.setattr(hardware_utils, "has_visible_nvidia_gpu", lambda: extra == "cuda")
    monkeypatch.setattr(
        hardware_utils, "num_available_tpu_chips_and_device_id", lambda: (extra == "tpu", None)
    )
    logger = logging.getLogger("jax._src.xla_bridge")
    monkeypatch.setattr(logger, "filters", [])
    monkeypatch.setattr(xla_bridge, "_backends", {"cpu": None})
    installation.name_extras()
    installation.name_extras()
    xla_bridge._suggest_missing_backends()
    assert caplog.messages[-1].count(f"To use it: pip install 'pixel-rnn-jax[{extra}]'") == 1
    assert f'"{extra}": ["jax[' in (ROOT / "setup.py").read_text()
