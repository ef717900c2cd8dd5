"""Exported files: the same model comes back, whatever is damaged is refused."""

import json
import os

import numpy as np
import pytest
import safetensors
import safetensors.numpy
from export_files import arrays_of, assert_same, tiny_model
from workdirs import full_disk

import pixel_rnn_jax as prnn
from pixel_rnn_jax.runs import export

RANDOM = np.random.default_rng(0)
KINDS = {
    "pixel_cnn": {},
    "row_lstm": dict(
        architecture="row_lstm", input="categorical", residual=False, images_per_lane=2
    ),
    "diagonal_bilstm": dict(architecture="diagonal_bilstm", dtype="bfloat16"),
    "scales": dict(scales=(1, 4), scale_architectures=("row_lstm", "pixel_cnn"), copy_coarse=False),
    "classes": dict(num_classes=3, class_names=("cat", "dog", "Größe")),
    "vector": dict(condition_vector=2),
    "map": dict(condition_map=2),
    "discretized": dict(output="discretized_logistic_mixture", mixtures=2),
    "continuous": dict(output="logistic_mixture", mixtures=2),
    "gaussian_mixture": dict(
        output="gaussian_mixture", mixtures=2, levels=0, units=dict(offset=(20.1,), scale=(0.3,))
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
    images = images if model.config.discrete else images + np.float32(0.3)
    condition = {
        "classes": list(model.class_names[:2]),
        "vector": np.ones((2, 2), np.float32),
        "map": np.ones((2, 4, 4, 2), np.float32),
    }.get(kind)
    log_probs = [each.log_prob(images, condition) for each in (loaded, model)]
    np.testing.assert_array_equal(*log_probs)


def test_the_same_model_gives_the_same_bytes(model, path):
    content = export.to_bytes(model.pixel_rnn, model.params, model.class_names)
    model.save(str(path))
    assert path.read_bytes() == content
    prnn.load(path).save(path)
    assert path.read_bytes() == content


def test_the_package_safetensors_reads_it(model, path):
    model.save(path)
    arrays = arrays_of(model)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert {*file.keys()} == arrays.keys() and "scale_0/first/kernel" in arrays
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.get_tensor(name), array)
        described = json.loads(file.metadata()["pixel_rnn_jax"])
    assert described["version"] == 1
    assert described["config"]["architecture"] == "pixel_cnn"
    assert described["images"]["class_names"] == ["one", "two"]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda params: params.pop("first"), "scale_0/first/bias"),
        (lambda params: params.update(more={"a": np.ones(1)}), "scale_0/more/a"),
        (lambda params: params["first"].update(bias=np.ones(5, np.float32)), "scale_0/first/bias"),
        (lambda params: params["first"].update(bias=np.ones(6, np.int32)), "scale_0/first/bias"),
        (
            lambda params: params["first"].update(bias=np.full(6, np.nan, np.float32)),
            "scale_0/first/bias",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_neither_written_nor_read(
    model, path, monkeypatch, change, named
):
    model.save(path)
    before, wrong = path.read_bytes(), prnn.load(path)
    change(wrong.params["scale_0"])
    with pytest.raises(prnn.UserError, match=named):
        wrong.save(path)
    assert path.read_bytes() == before
    with monkeypatch.context() as patch:
        patch.setattr(export, "_check_params", lambda *_: None)
        wrong.save(path)
    with pytest.raises(prnn.UserError, match=named):
        prnn.load(path)


def test_a_failing_write_leaves_the_old_file(model, path):
    path.write_bytes(b"precious")
    with full_disk(1000), pytest.raises(OSError, match="(?i)file too large"):
        model.save(path)
    assert path.read_bytes() == b"precious" and os.listdir(path.parent) == [path.name]


def test_another_config_is_refused(model, path):
    """The digest covers what is said of the arrays."""
    metadata = json.loads(_metadata(model))
    metadata["config"]["residual"] = False
    path.write_bytes(
        safetensors.numpy.save(arrays_of(model), {"pixel_rnn_jax": json.dumps(metadata)})
    )
    with pytest.raises(prnn.UserError, match="SHA-256"):
        prnn.load(path)
    metadata["version"] = 2
    path.write_bytes(
        safetensors.numpy.save(arrays_of(model), {"pixel_rnn_jax": json.dumps(metadata)})
    )
    with pytest.raises(prnn.UserError, match="version 2"):
        prnn.load(path)


def _metadata(model):
    content = export.to_bytes(model.pixel_rnn, model.params, model.class_names)
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"]["pixel_rnn_jax"]


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04" + bytes(100), safetensors.numpy.save({"a": np.ones(3)})]
)
def test_other_files_are_refused(path, content):
    path.write_bytes(content)
    with pytest.raises(prnn.UserError, match=str(path)):
        prnn.load(path)


@pytest.mark.parametrize("where", ["header", "anywhere", "cut"])
def test_damage_never_goes_unnoticed(path, model, where):
    """A file with a wrong byte is refused, or the byte means nothing."""
    model.save(path)
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    refused = 0
    for _ in range(100):
        data = bytearray(content)
        if where == "cut":
            del data[RANDOM.integers(len(data)) :]
        else:
            position = RANDOM.integers(header if where == "header" else len(data))
            data[position] ^= RANDOM.integers(1, 256)
        path.write_bytes(data)
        try:
            assert_same(prnn.load(path), model)
        except prnn.UserError:
            refused += 1
    assert refused >= (100 if where == "cut" else 90)
