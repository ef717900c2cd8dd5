"""Sets of every kind, written and opened in one line."""

import contextlib
import dataclasses
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from helpers.pictures import png

from pixel_rnn_jax import data
from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.runs import source
from pixel_rnn_jax.runs.config import Config
from pixel_rnn_jax.system.errors import UserError


@pytest.fixture
def refused():
    """Expects a UserError that names every part: a file, a field, a value."""

    @contextlib.contextmanager
    def expect(*parts):
        with pytest.raises(UserError) as caught:
            yield
        for part in parts:
            assert part in str(caught.value)

    return expect


@pytest.fixture
def pictures():
    """Makes random images of any shape."""
    rng = np.random.default_rng(0)
    return lambda *shape, below=256: rng.integers(0, below, shape, np.uint8)


@pytest.fixture
def opened(tmp_path):
    """Opens a split of a set by its name, or of new arrays {key: array}."""

    def open_split(which, split="train", **fields):
        if isinstance(which, dict):
            np.savez(tmp_path / "opened.npz", **which)
            which = tmp_path / "opened.npz"
        fields = {"name": str(which), "data_dir": str(tmp_path), **fields}
        of_model = {field.name for field in dataclasses.fields(ModelConfig)} & fields.keys()
        model = ModelConfig(**{name: fields.pop(name) for name in of_model})
        return source.open_split(Config(model, DataConfig(**fields)), split)

    return open_split


@pytest.fixture
def read(opened):
    """Returns the images of a split, or of one that it opens as `opened` does."""

    def read_all(which, *args, **fields):
        split = which if isinstance(which, data.Split) else opened(which, *args, **fields)
        return split.batch(range(len(split))).images

    return read_all


@pytest.fixture
def write_tfds(tmp_path):
    """Writes a prepared TFDS set without TensorFlow: {split: [images of each shard]}."""

    def write(name, shards, feature, *, encode=png, form="array_record", **options):
        key, classes = options.get("key", "image"), list(options.get("classes", "01"))
        label = options.get("label", 1)
        folder = tmp_path / name / "1.0.0"
        folder.mkdir(parents=True)
        label_feature = tfds.features.ClassLabel(names=classes)
        features = tfds.features.FeaturesDict({key: feature, "label": label_feature})
        features.save_config(str(folder))
        serializer = tfds.core.ExampleSerializer(features.get_serialized_info())
        name, _, config = name.partition("/")
        info = {"name": name, "configName": config, "version": "1.0.0", "fileFormat": form}
        info["splits"] = splits = []
        for split, parts in shards.items():
            for number, images in enumerate(parts):
                file = f"{name}-{split}.{form}-{number:05}-of-{len(parts):05}"
                writer = ArrayRecordWriter(str(folder / file), "group_size:1")
                for image in images:
                    writer.write(serializer.serialize_example({key: encode(image), "label": label}))
                writer.close()
            splits.append({"name": split, "numBytes": "1", "shardLengths": [*map(len, parts)]})
            splits[-1]["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        (folder / "dataset_info.json").write_text(json.dumps(info))

    return write
