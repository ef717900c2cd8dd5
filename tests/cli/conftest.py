"""The command line within the process of the tests."""

import shlex

import numpy as np
import pytest
from helpers.random_models import tiny_model

from pixel_rnn_jax.main import main, parse_flags
from pixel_rnn_jax.system import devices


@pytest.fixture
def cli(monkeypatch, capfd):
    """Runs the words of a shell command; returns the exit status, the output and the errors."""
    monkeypatch.setattr(devices, "set_up_host_devices", lambda: None)  # The tests have set them up.

    def run(words):
        try:
            status = main(parse_flags(["", *shlex.split(words)]))
        except SystemExit as end:
            status = end.code or 0
        return status, *capfd.readouterr()

    return run


@pytest.fixture
def printed(cli):
    """Runs a command that succeeds, and returns its output."""

    def run(words):
        status, out, err = cli(words)
        assert status == 0, err
        return out

    return run


@pytest.fixture(scope="session")
def images():
    """Forty images 4×5 of three levels."""
    return np.random.default_rng(0).integers(3, size=(40, 4, 5, 1), dtype=np.uint8)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """A file with a model of such images."""
    path = tmp_path_factory.mktemp("exported") / "model.safetensors"
    tiny_model(image_shape=(4, 5, 1)).save(path)
    return path
