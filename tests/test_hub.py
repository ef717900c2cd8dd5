"""Models on the Hugging Face Hub, against a stand-in for huggingface_hub: a folder on this disk."""

import sys
import types

import pytest
from export_files import assert_same, tiny_model

import pixel_rnn_jax as prnn


class StandIn(types.ModuleType):
    """The part of huggingface_hub that is used; a repository is a folder, and has one revision."""

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.calls = folder, []

    def HfApi(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        assert exist_ok
        self.calls.append(("private", private))
        repo_id = repo_id if "/" in repo_id else f"me/{repo_id}"
        (self.folder / repo_id).mkdir(parents=True, exist_ok=True)
        return types.SimpleNamespace(repo_id=repo_id)

    def file_exists(self, repo_id, filename):
        return (self.folder / repo_id / filename).exists()

    def CommitOperationAdd(self, *, path_in_repo, path_or_fileobj):
        return path_in_repo, path_or_fileobj

    def create_commit(self, repo_id, operations, *, commit_message):
        for name, data in operations:
            (self.folder / repo_id / name).write_bytes(data)
        self.calls.append(("files", [name for name, _ in operations]))
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def hf_hub_download(self, repo_id, filename, *, revision, token):
        self.calls.append(("download", repo_id, filename, revision, token))
        return str(self.folder / repo_id / filename)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    stand_in = StandIn(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    return stand_in


def test_push_and_load(hub):
    model = tiny_model(num_classes=2, class_names=("cat", "dog"))
    assert model.push_to_hub("a", private=True, token="t") == "https://hub/me/a/commit/1"
    files = ["model.safetensors", "README.md"]
    assert hub.calls == [("token", "t"), ("private", True), ("files", files)]
    assert_same(model, prnn.from_pretrained("me/a", revision="main", token="t"))
    assert hub.calls[-1] == ("download", "me/a", "model.safetensors", "main", "t")
    card = (hub.folder / "me/a/README.md").read_text()
    assert card.startswith("---\nlibrary_name: pixel-rnn-jax\n") and f"`{model!r}`" in card
    assert "Classes: cat, dog" in card and 'prnn.from_pretrained("me/a")' in card


def test_another_upload_keeps_the_card(hub):
    model = tiny_model()
    model.push_to_hub("me/a")
    (hub.folder / "me/a/README.md").write_text("My words.")
    model.push_to_hub("me/a")
    assert hub.calls[-1] == ("files", ["model.safetensors"])
    assert (hub.folder / "me/a/README.md").read_text() == "My words."
