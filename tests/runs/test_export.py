"""Exported files: the same model comes back, and what cannot be written leaves the old file."""

import json
import os

import exported_network
import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from codec_streams import random_images
from export_files import TINY, arrays_of, assert_same, tiny_model, write_by_hand
from random_models import model_and_parameters
from workdirs import full_disk

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import coder
from pixel_rnn_jax.codec.identity import model_digest
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
    "logistic": dict(output="discretized_logistic_mixture", mixtures=2),
    "continuous": dict(output="logistic_mixture", mixtures=2),
    "gaussian_mixture": dict(
        output="gaussian_mixture", mixtures=2, levels=0, units=dict(offset=(20.1,), scale=(0.3,))
    ),
}


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
    found, expected = loaded.log_prob(images, condition), model.log_prob(images, condition)
    np.testing.assert_array_equal(found, expected)


def test_round_trip_of_float64(path, x64):
    model = tiny_model(dtype="float64")
    model.save(path)
    assert_same(model, prnn.load(path))
    with jax.enable_x64(False), pytest.raises(prnn.UserError, match='"float64" needs jax_enable'):
        prnn.load(path)


def test_the_same_model_gives_the_same_bytes(model, content, path):
    model.save(str(path))
    assert path.read_bytes() == content
    prnn.load(path).save(path)
    assert path.read_bytes() == content


def test_the_package_safetensors_reads_it(model, path):
    model.save(path)
    own = arrays_of(model)
    with safetensors.safe_open(path, framework="numpy") as file:
        assert {*file.keys()} == own.keys() and "scale_0/first/kernel" in own
        for name, leaf in own.items():
            array = file.get_tensor(name)
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, leaf)
        found = file.metadata()
    assert (found["format"], found["format_version"]) == ("pixel-rnn-jax", "1")
    assert json.loads(found["config"])["architecture"] == "pixel_cnn"
    assert json.loads(found["images"])["class_names"] == ["one", "two"]


def test_numpy_alone_reads_it(model, path):
    model.save(path)
    metadata, arrays = exported_network.read(path)
    own = arrays_of(model)
    assert arrays.keys() == own.keys() and all((arrays[name] == own[name]).all() for name in own)
    assert export.digest(metadata["config"], metadata["images"], arrays) == metadata["digest"]


def test_a_file_of_another_framework_is_read(model, path):
    """The order of the header and of the arrays may be any."""
    model.save(path)
    metadata, arrays = exported_network.read(path)
    text = safetensors.numpy.save(dict(reversed(arrays.items())), metadata | {"more": "text"})
    path.write_bytes(text)
    assert_same(model, prnn.load(path))


def test_the_codec_decodes_with_a_loaded_model(path):
    model = tiny_model()
    images = random_images(model, 3)
    data = model.compress(images)
    model.save(path)
    np.testing.assert_array_equal(prnn.load(path).decompress(data), images)


def test_digest_of_the_codec_is_that_of_what_is_computed():
    def digest(**options):
        model = tiny_model(**options)
        return model_digest(model.pixel_rnn, model.params)

    other = coder.Coder(*model_and_parameters("pixel_cnn", (4, 4, 1), 3, **TINY))
    assert (
        digest() == digest(images_per_lane=3, remat=True) == model_digest(other.model, other.params)
    )
    assert digest() != digest(residual=False)
    density = dict(output="gaussian_mixture", levels=0)
    assert digest(**density) != digest(**density, units=dict(offset=(1.0,), scale=(1.0,)))


# What is not written.


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda own: own.pop("first"), "scale_0/first/bias, scale_0/first/kernel missing$"),
        (lambda own: own.update(more={"a": np.ones(1)}), "scale_0/more/a left over$"),
        (
            lambda own: own["first"].update(bias=np.ones(5, np.float32)),
            r"scale_0/first/bias is float32\[5\] instead of float32\[6\]$",
        ),
        (
            lambda own: own["first"].update(bias=np.ones(6, np.int32)),
            r"scale_0/first/bias is int32\[6\] instead of float32\[6\]$",
        ),
        (
            lambda own: own.clear(),
            "scale_0/body_0/condition_to_map/kernel, .*, .* and 13 more missing$",
        ),
        (
            lambda own: own["first"].update(bias=np.full(6, np.nan, np.float32)),
            "parameters are not finite: scale_0/first/bias; train the model again$",
        ),
    ],
)
def test_parameters_that_do_not_fit_are_neither_written_nor_read(path, content, change, message):
    path.write_bytes(content)
    wrong = prnn.load(path)
    change(wrong.params["scale_0"])
    with pytest.raises(prnn.UserError, match=message):
        wrong.save(path)
    assert path.read_bytes() == content
    write_by_hand(path, wrong, arrays_of(wrong))
    with pytest.raises(prnn.UserError, match=f"model.safetensors holds no model .*: .*{message}"):
        prnn.load(path)


def test_parameters_that_are_no_nested_dict(path, model):
    for params in ({}, [], model.params["scale_0"]["first"]):
        with pytest.raises(prnn.UserError, match="do not fit the architecture: scale_0"):
            prnn.ImageModel(model.pixel_rnn, params).save(path)
    with pytest.raises(prnn.UserError, match=r"ImageModel\.save needs values: call it"):
        jax.jit(lambda params: prnn.ImageModel(model.pixel_rnn, params).save(path))(model.params)


def test_a_failing_write_leaves_the_old_file(model, content, path):
    path.write_bytes(b"precious")
    with full_disk(1000), pytest.raises(prnn.UserError, match=r"\.safetensors cannot be written"):
        model.save(path)
    assert path.read_bytes() == b"precious" and os.listdir(path.parent) == [path.name]
    (path.parent / "file").write_text("")
    with pytest.raises(prnn.UserError, match=r"file/b\.safetensors cannot be written: "):
        model.save(path.parent / "file" / "b.safetensors")
    with pytest.raises(prnn.UserError, match="is a folder: give the name of a file"):
        model.save(path.parent)
    path.write_bytes(b"old")
    (path.parent / "link").symlink_to(path)
    model.save(path.parent / "link")  # It stays a link, as a device stays one.
    assert (path.parent / "link").is_symlink() and path.read_bytes() == content
    model.save(path.parent / "new" / "model")  # Any name, and in a new folder.
    assert_same(prnn.load(path.parent / "new" / "model"), model)
