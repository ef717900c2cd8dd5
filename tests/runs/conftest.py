"""A model in an exported file."""

import pytest
from export_files import tiny_model

from pixel_rnn_jax.runs import export


@pytest.fixture(scope="module")
def model():
    return tiny_model(num_classes=2, class_names=("one", "two"))


@pytest.fixture(scope="module")
def content(model):
    return export.to_bytes(model.pixel_rnn, model.params, model.class_names)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"
