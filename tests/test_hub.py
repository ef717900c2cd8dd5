"""Models on the Hugging Face Hub, against a stand-in for huggingface_hub: a folder on this disk."""

import sys
import types

import pytest
from helpers.random_models import assert_same, tiny_model

import pixel_rnn_jax as prnn


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The folder; a repository is a folder in it, and has one revision."""

    class Api:
        def __init__(self, token):
            assert token == "t"

        def create_repo(self, repo_id, *, private, exist_ok):
            assert private and exist_ok
            (tmp_path / "me" / repo_id).mkdir(parents=True, exist_ok=True)
            return types.SimpleNamespace(repo_id=f"me/{repo_id}")

        def upload_file(self, *, path_or_fileobj, path_in_repo, repo_id):
            (tmp_path / repo_id / path_in_repo).write_bytes(path_or_fileobj)
            return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def download(repo_id, filename, *, revision, token):
        assert (revision, token) == ("main", "t")
        return str(tmp_path / repo_id / filename)

    stand_in = types.ModuleType("huggingface_hub")
    stand_in.__dict__.update(HfApi=Api, hf_hub_download=download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)


@pytest.mark.usefixtures("hub")
def test_push_and_load():
    model = tiny_model(num_classes=2, class_names=("cat", "dog"))
    assert model.push_to_hub("a", private=True, token="t") == "https://hub/me/a/commit/1"
    assert_same(model, prnn.from_pretrained("me/a", revision="main", token="t"))
