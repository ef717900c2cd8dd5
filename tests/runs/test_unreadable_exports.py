"""Exported files that cannot be read: a sentence for each, and no damage that goes unnoticed."""

import json

import numpy as np
import pytest
import safetensors.numpy
from export_files import arrays_of, assert_same, config_with, write_by_hand

import pixel_rnn_jax as prnn

RANDOM = np.random.default_rng(0)


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
            lambda model: dict(images='{"image_shape": [30000, 30000, 1], "levels": 2}'),
            "images of 30000x30000x1 are too large",
        ),
        (
            lambda model: dict(images='{"image_shape": [4, 4, 1], "levels": 0}'),
            "levels must be from 2 to 16,777,216, got 0$",
        ),
    ],
)
def test_wrong_metadata(path, model, changed, message):
    arrays = arrays_of(model)
    write_by_hand(path, model, arrays)
    assert_same(prnn.load(path), model)
    write_by_hand(path, model, arrays, **changed(model))
    with pytest.raises(prnn.UserError, match=rf"model\.safetensors .*{message}"):
        prnn.load(path)


def test_a_config_of_an_earlier_version(path, model):
    """A field that is not in the file has its default, such as `remat` here."""
    config = json.loads(config_with(model))
    del config["remat"], config["input"]
    arrays = arrays_of(model)
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
