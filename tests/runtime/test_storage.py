"""Paths in a bucket, with memory in its place."""

import sys

import fsspec
import jax
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

import pixel_rnn_jax as prnn
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import storage


class MemoryBucket(MemoryFileSystem):
    """Google's buckets for `epath`; Orbax, which writes checkpoints, has a client of its own."""

    protocol = ("gs", "gcs")

    def __init__(self, **options):
        super().__init__()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


def test_a_model_in_a_bucket():
    storage.check("gs://bucket/model.safetensors")
    fsspec.register_implementation("gcs", MemoryBucket, clobber=True)
    config = prnn.ModelConfig(architecture="pixel_cnn", layers=1, features=2)
    model = prnn.create(config, image_shape=(4, 4, 1), levels=2)
    model.save("gs://bucket/model.safetensors")
    assert list(MemoryBucket.store) == ["/bucket/model.safetensors"]
    loaded = prnn.load("gs://bucket/model.safetensors")
    jax.tree.map(np.testing.assert_array_equal, model.params, loaded.params)


def test_other_schemes_are_refused(monkeypatch):
    storage.check("runs/a")
    with pytest.raises(UserError, match="s3://bucket/run"):
        storage.check("s3://bucket/run")
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"pixel-rnn-jax\[gcs\]"):
        storage.check("gs://bucket/run")
