"""The examples in the docstrings of public names."""

import doctest
import inspect
import operator
import sys
import types

import jax
import numpy as np
import pytest

import pixel_rnn_jax as prnn
import pixel_rnn_jax.codec
from pixel_rnn_jax.system import devices, files

NAMES = [name for name in prnn.__all__ if not name.startswith("_") and name != "layers"]
SLOW = "PixelRNN", "fit", "layers.check"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in SLOW else ())
        for name in (*NAMES, "layers.check", "codec.Encoder")
    ],
)
def test_the_example_of_a_public_name_runs(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(devices, "set_up_host_devices", lambda: None)  # The tests have set them up.
    hub = types.ModuleType("huggingface_hub")
    file = (files.BUNDLED / "digits") / files.MODEL_FILE
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: file, raising=False)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    names = {"prnn": prnn, "np": np, "jax": jax}
    text = inspect.getdoc(operator.attrgetter(name)(prnn))
    example = doctest.DocTestParser().get_doctest(text, names, name, None, 0)
    assert example.examples
    printed: list[str] = []
    results = doctest.DocTestRunner().run(example, out=printed.append)
    assert not results.failed, "".join(printed)
