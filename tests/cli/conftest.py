"""What the tests of the command line share."""

import shlex

import pytest

from pixel_rnn_jax.main import main
from pixel_rnn_jax.runtime import devices


@pytest.fixture
def run(monkeypatch):
    """Calls main with the words of a shell command; it keeps the devices that the tests have."""
    monkeypatch.setattr(devices, "set_up_host_devices", lambda: None)
    return lambda words: main(shlex.split(words))
