"""Exported files: the same model comes back, and a sentence for each file that cannot be read."""

import dataclasses
import json
import os

import exported_network
import jax
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from codec_streams import random_images
from random_models import model_and_parameters
from workdirs import full_disk

import pixel_rnn_jax as prnn
from pixel_rnn_jax.codec import coder
from pixel_rnn_jax.runs import export
from pixel_rnn_jax.runs.workdir import ImageFormat

TINY = dict(layers=1, features=3, head_features=4, first_kernel=3)
RANDOM = np.random.default_rng(0)


def tiny_model(architecture="pixel_cnn", *, levels=3, class_names=(), **options):
    found = model_and_parameters(architecture, (4, 4, 1), levels, **TINY | options)
    return prnn.ImageModel(*found, class_names)


@pytest.fixture(scope="module")
def model():
    return tiny_model(classes=2, class_names=("one", "two"))


@pytest.fixture(scope="module")
def content(model):
    return export.to_bytes(model.pixel_rnn, model.params, model.class_names)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def bits(model):
    leaves = jax.tree_util.tree_leaves_with_path(model.params)
    return {str(key): (leaf.dtype, leaf.shape, leaf.tobytes()) for key, leaf in leaves}


def assert_same(one, other):
    assert one.pixel_rnn == other.pixel_rnn and one.class_names == other.class_names
    assert bits(one) == bits(other)


KINDS = {
    "pixel_cnn": {},
    "row_lstm": dict(architecture="row_lstm", input="categorical", residual=False, pack=2),
    "diagonal_bilstm": dict(architecture="diagonal_bilstm", dtype="bfloat16"),
    "scales": dict(scales=(1, 4), scale_architectures=("row_lstm", "pixel_cnn"), exact=False),
    "classes": dict(classes=3, class_names=("cat", "dog", "Größe")),
    "vector": dict(condition_vector=2),
    "map": dict(condition_map=2),
    "logistic": dict(output="logistic", mixtures=2),
    "continuous": dict(output="continuous", mixtures=2),
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
    own = export._by_name(model.params)
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
    own = export._by_name(model.params)
    assert arrays.keys() == own.keys() and all((arrays[name] == own[name]).all() for name in own)
    assert export.digest(metadata["config"], metadata["images"], arrays) == metadata["digest"]


def test_a_file_of_another_framework_is_read(model, path):
    """The order of the header and of the arrays may be any."""
    model.save(path)
    metadata, arrays = exported_network.read(path)
    text = safetensors.numpy.save(dict(reversed(arrays.items())), metadata | {"more": "text"})
    path.write_bytes(text)
    assert_same(model, prnn.load(path))


def test_the_codec_decodes_with_a_loaded_model(path, monkeypatch):
    monkeypatch.setattr(coder, "LANES", 4)
    model = tiny_model()
    images = random_images(model, 3)
    data = model.compress(images)
    model.save(path)
    np.testing.assert_array_equal(prnn.load(path).decompress(data), images)


def test_digest_of_the_codec_is_that_of_what_is_computed():
    def digest(**options):
        model = tiny_model(**options)
        return coder.model_digest(model.pixel_rnn, model.params)

    other = coder.Coder(*model_and_parameters("pixel_cnn", (4, 4, 1), 3, **TINY))
    assert digest() == digest(pack=3, remat=True) == coder.model_digest(other.model, other.params)
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
    arrays = {name: np.asarray(leaf) for name, leaf in export._by_name(wrong.params).items()}
    write_by_hand(path, wrong, arrays)
    with pytest.raises(prnn.UserError, match=f"model.safetensors holds no model .*: .*{message}"):
        prnn.load(path)


def test_parameters_that_are_no_nested_dict(path, model):
    for params in ({}, [], model.params["scale_0"]["first"]):
        with pytest.raises(prnn.UserError, match="do not fit the architecture: scale_0"):
            prnn.ImageModel(model.pixel_rnn, params).save(path)
    with pytest.raises(prnn.UserError, match=r"ImageModel\.save needs values, got a tracer"):
        jax.jit(lambda params: prnn.ImageModel(model.pixel_rnn, params).save(path))(model.params)


def test_a_failing_write_leaves_the_old_file(model, content, path):
    path.write_bytes(b"precious")
    with full_disk(1000), pytest.raises(prnn.UserError, match=r"\.safetensors cannot be written"):
        model.save(path)
    assert path.read_bytes() == b"precious" and os.listdir(path.parent) == [path.name]
    (path.parent / "file").write_text("")
    with pytest.raises(prnn.UserError, match=r"file/b\.safetensors cannot be written to: "):
        model.save(path.parent / "file" / "b.safetensors")
    with pytest.raises(prnn.UserError, match="is a folder: give the name of a file"):
        model.save(path.parent)
    model.save(path.parent / "new" / "model")  # Any name, and in a new folder.
    assert_same(prnn.load(path.parent / "new" / "model"), model)


# What is not read.


def write_by_hand(path, model, arrays, **changed):
    """Writes a file with the package safetensors, with changes of the metadata; has a digest."""
    pixel_rnn = model.pixel_rnn
    images = ImageFormat(
        *(pixel_rnn.image_shape, pixel_rnn.levels, pixel_rnn.offset, pixel_rnn.scale),
        model.class_names,
    )
    metadata = {
        "format": "pixel-rnn-jax",
        "format_version": "1",
        "config": json.dumps(dataclasses.asdict(pixel_rnn.config)),
        "images": images.to_json(),
    } | changed
    digest = export.digest(metadata["config"], metadata["images"], arrays)
    path.write_bytes(safetensors.numpy.save(arrays, {"digest": digest} | metadata))


def config_with(model, **changed):
    return json.dumps(dataclasses.asdict(model.config) | changed)


@pytest.mark.parametrize(
    "changed, message",
    [
        (
            lambda model: dict(format_version="7"),
            "has version 7 of the format, and this version of pixel-rnn-jax reads versions up to 1",
        ),
        (lambda model: dict(format_version="x"), "its header cannot be read"),
        (lambda model: dict(digest="0" * 64), "it does not have the digest in its header"),
        (lambda model: dict(format="other"), "holds something else than a model of pixel-rnn-jax"),
        (
            lambda model: dict(config=config_with(model, depth=3, attention=True)),
            "a later version of pixel-rnn-jax wrote it, with fields of the config that this one "
            "does not have: attention, depth$",
        ),
        (
            lambda model: dict(config=config_with(model, kernel=2)),
            "model.kernel must be odd and at least 3, got 2$",
        ),
        (
            lambda model: dict(config=config_with(model, architecture="row_lstm")),
            "do not fit the architecture: scale_0/body_0/lstm.* left over$",
        ),
        (lambda model: dict(config="[1]"), "holds no model that this version can use"),
        (lambda model: dict(config="{"), "holds no model that this version can use"),
        (lambda model: dict(images='{"levels": 3}'), "holds no model that this version can use"),
        (
            lambda model: dict(images='{"image_shape": [4, 4, 1], "levels": 0}'),
            "levels must be at least 2, got 0$",
        ),
    ],
)
def test_wrong_metadata(path, model, changed, message):
    arrays = {name: np.asarray(leaf) for name, leaf in export._by_name(model.params).items()}
    write_by_hand(path, model, arrays)
    assert_same(prnn.load(path), model)
    write_by_hand(path, model, arrays, **changed(model))
    with pytest.raises(prnn.UserError, match=rf"model\.safetensors .*{message}"):
        prnn.load(path)


def test_a_config_of_an_earlier_version(path, model):
    """A field that is not in the file has its default, such as `remat` here."""
    config = json.loads(config_with(model))
    del config["remat"], config["input"]
    arrays = {name: np.asarray(leaf) for name, leaf in export._by_name(model.params).items()}
    write_by_hand(path, model, arrays, config=json.dumps(config))
    assert_same(prnn.load(path), model)


def test_other_files(path, tmp_path, content):
    def refused(data, message):
        path.write_bytes(data)
        with pytest.raises(prnn.UserError, match=rf"model\.safetensors {message}"):
            prnn.load(path)

    header = 8 + int.from_bytes(content[:8], "little")
    refused(b"", "is not a safetensors file: give one that `save` or the command `export` wrote")
    refused(b"PK\x03\x04" + bytes(100), "is not a safetensors file")
    refused(b"\xff" * 100, "is not a safetensors file")
    refused(safetensors.numpy.save({"a": np.ones(3)}), "holds something else than a model")
    refused(safetensors.numpy.save({}, {"format": "pt"}), "holds something else than a model")
    refused(b"\2\0\0\0\0\0\0\0[]", "is not a safetensors file")
    refused(content[: header // 2], r"is damaged or cut off \(its header cannot be read\)")
    refused(content[:header], r"is damaged or cut off \(its header does not fit the rest\)")
    refused(content[:-1], r"is damaged or cut off \(its header does not fit the rest\)")
    refused(content + b"\n", r"is damaged or cut off \(its header does not fit the rest\)")
    refused(content.replace(b'"config":"{', b'"config":"['), "its header|the digest")
    path.unlink()
    with pytest.raises(prnn.UserError, match=rf"there is no file {path}$"):
        prnn.load(path)
    with pytest.raises(prnn.UserError, match="holds no training run: there is no config.json in"):
        prnn.load(tmp_path)
    path.mkdir()
    with pytest.raises(prnn.UserError, match="holds no training run: there is no config.json in"):
        prnn.load(path)
    with pytest.raises(prnn.UserError, match="neither a folder nor in a bucket"):
        prnn.load("s3://bucket/model.safetensors")


@pytest.mark.parametrize(
    "old, new", [("one", "uno"), ('pack\\": 0', 'pack\\": 1'), ("first/bias", "third/bias")]
)
def test_the_digest_covers_texts_and_names(path, content, old, new):
    assert old.encode() in content
    path.write_bytes(content.replace(old.encode(), new.encode()))
    with pytest.raises(prnn.UserError, match="it does not have the digest in its header"):
        prnn.load(path)


@pytest.mark.parametrize("where", ["header", "anywhere", "cut"])
def test_damage_never_goes_unnoticed(path, model, content, where):
    """A file with a wrong byte is refused, or the byte means nothing."""
    header = 8 + int.from_bytes(content[:8], "little")
    said = []
    for _ in range(100):
        data = bytearray(content)
        if where == "cut":
            del data[RANDOM.integers(len(data)) :]
        else:
            data[RANDOM.integers(header if where == "header" else len(data))] ^= RANDOM.integers(
                1, 256
            )
        path.write_bytes(data)
        try:
            assert_same(prnn.load(path), model)
        except prnn.UserError as error:
            said.append(str(error))
    assert len(said) >= (100 if where == "cut" else 90)
    assert all(text.startswith(str(path)) and "\n" not in text for text in said)
