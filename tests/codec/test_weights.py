"""Exported files: the same model comes back, whatever is damaged is refused."""

import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from helpers.random_models import arrays_of, assert_same, tiny_model
from helpers.workdirs import full_disk

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import weights as export

RANDOM = np.random.default_rng(0)
KINDS = {
    "row_lstm": dict(
        architecture="row_lstm", input="categorical", residual=False, condition_vector=2
    ),
    "diagonal_bilstm": dict(architecture="diagonal_bilstm", dtype="bfloat16", images_per_lane=2),
    "scales": dict(scales=(1, 4), scale_architectures=("row_lstm", "pixel_cnn"), copy_coarse=False),
    "classes": dict(num_classes=3, class_names=("cat", "dog", "Größe")),
    "gaussian_mixture": dict(
        output="gaussian_mixture", mixtures=2, levels=0, units=dict(mean=(20.1,), std=(0.3,))
    ),
}


@pytest.fixture(scope="module")
def model():
    return tiny_model(num_classes=2, class_names=("one", "two"))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("kind", KINDS)
def test_round_trip(path, kind):
    model = tiny_model(**KINDS[kind])
    model.save(path)
    loaded = prnn.load(path)
    assert_same(model, loaded)
    images = RANDOM.integers(3, size=(2, 4, 4, 1))
    images = images if model.pixel_rnn.likelihood.discrete else images + np.float32(0.3)
    conditions = {"classes": list(model.class_names[:2]), "row_lstm": np.ones((2, 2), np.float32)}
    condition = conditions.get(kind)
    log_probs = [each.log_prob(images, condition) for each in (loaded, model)]
    np.testing.assert_array_equal(*log_probs)


def test_the_package_safetensors_reads_it(model, path):
    model.save(str(path))
    content = path.read_bytes()
    prnn.load(path).save(path)
    assert path.read_bytes() == content  # The same model gives the same bytes.
    arrays = arrays_of(model)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert {*file.keys()} == arrays.keys() and "scale_0/first/kernel" in arrays
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)
        described = json.loads(file.metadata()["pixel_rnn_jax"])
    assert described["version"] == 1
    assert described["config"]["architecture"] == "pixel_cnn"
    assert described["images"]["class_names"] == ["one", "two"]


@pytest.mark.parametrize("bias", [None, np.ones(5), np.full(6, np.nan), np.ones(6, np.int32)])
def test_parameters_that_do_not_fit_are_neither_written_nor_read(model, path, monkeypatch, bias):
    model.save(path)
    before, wrong = path.read_bytes(), prnn.load(path)
    del wrong.params["scale_0"]["first"]["bias"]
    if bias is not None:
        bias = bias.astype(np.float32) if bias.dtype.kind == "f" else bias
        wrong.params["scale_0"]["first"]["bias"] = bias
    with pytest.raises(prnn.UserError, match="scale_0/first/bias"):
        wrong.save(path)
    assert path.read_bytes() == before
    monkeypatch.setattr(export, "_check_params", lambda *_: None)
    wrong.save(path)
    monkeypatch.undo()
    with pytest.raises(prnn.UserError, match="scale_0/first/bias"):
        prnn.load(path)


def test_a_failing_write_leaves_the_old_file(model, path):
    path.write_bytes(b"precious")
    with full_disk(1000), pytest.raises(OSError, match="(?i)file too large"):
        model.save(path)
    assert path.read_bytes() == b"precious" and os.listdir(path.parent) == [path.name]


def test_another_config_is_refused(model, path):
    """The digest covers what is said of the arrays."""
    model.save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        metadata = json.loads(file.metadata()["pixel_rnn_jax"])
    metadata["config"]["residual"] = False
    for version, named in ((1, "SHA-256"), (2, "version 2")):
        text = json.dumps(metadata | {"version": version})
        safetensors.numpy.save_file(arrays_of(model), path, {"pixel_rnn_jax": text})
        with pytest.raises(prnn.UserError, match=named):
            prnn.load(path)


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("config", "features", 10**6),
        ("config", "head_features", 10**6),
        ("config", "layers", 10**6),
        ("config", "mixtures", 10**9),
        ("config", "first_kernel", 10_001),
        ("images", "levels", 2**24),
        ("images", "image_shape", [60_000, 60_000, 1]),
        ("images", "image_shape", None),
    ],
)
def test_a_config_that_the_file_does_not_explain_is_refused(model, path, group, field, value):
    """At once: nothing of its size is made."""
    model.save(path)
    with safetensors.safe_open(path, framework="numpy") as file:
        described = json.loads(file.metadata()["pixel_rnn_jax"])
    del described["sha256"]
    described["config"]["output"] = "softmax" if field == "levels" else "logistic_mixture"
    described[group][field] = value
    arrays = arrays_of(model)
    described["sha256"] = export._digest(described, arrays)
    safetensors.numpy.save_file(arrays, path, {"pixel_rnn_jax": json.dumps(described)})
    with pytest.raises(prnn.UserError, match=str(path)):
        prnn.load(path)


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(100), safetensors.numpy.save({"a": np.ones(3)})]
)
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(prnn.UserError, match=str(path)):
        prnn.load(path)
