"""Paths in a bucket, with memory in its place."""

import fsspec
from fsspec.implementations.memory import MemoryFileSystem
from helpers.random_models import assert_same, tiny_model

import pixel_rnn_jax as prnn
from pixel_rnn_jax.system import files


class MemoryBucket(MemoryFileSystem):
    """Google's buckets for `epath`; Orbax, which writes checkpoints, has a client of its own."""

    protocol = ("gs", "gcs")

    def __init__(self, **options):
        super().__init__()

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(path.removeprefix("gs://"))


def test_a_model_in_a_bucket():
    files.check_storage("gs://bucket/model.safetensors")
    fsspec.register_implementation("gcs", MemoryBucket, clobber=True)
    model = tiny_model()
    model.save("gs://bucket/model.safetensors")
    assert list(MemoryBucket.store) == ["/bucket/model.safetensors"]
    assert_same(model, prnn.load("gs://bucket/model.safetensors"))
