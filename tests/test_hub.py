"""Models on the Hugging Face Hub, against a stand-in for huggingface_hub: a folder on this disk."""

import sys
import types

import jax
import numpy as np
import pytest
from random_models import model_and_parameters

import pixel_rnn_jax as prnn


class Missing(Exception):
    """As long as those of the Hub."""


class StandIn(types.ModuleType):
    """The part of huggingface_hub that is used; a repository is a folder, and has one revision."""

    def __init__(self, folder):
        super().__init__("huggingface_hub")
        self.folder, self.calls, self.offline = folder, [], False

    def __getattr__(self, name):
        raise AttributeError(name)

    def HfApi(self, token=None):
        self.calls.append(("token", token))
        return self

    def create_repo(self, repo_id, *, private, exist_ok):
        if self.offline:
            raise ConnectionError("no route\n\nto the host")
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
        assert commit_message
        for name, data in operations:
            (self.folder / repo_id / name).write_bytes(data)
        self.calls.append(("files", [name for name, _ in operations]))
        return types.SimpleNamespace(commit_url=f"https://hub/{repo_id}/commit/1")

    def hf_hub_download(self, repo_id, filename, *, revision, token):
        self.calls.append(("download", repo_id, filename, revision, token))
        path = self.folder / repo_id / filename
        if not path.exists():
            raise Missing("404 Client Error.\n\nRepository Not Found for url: https://hub/x.\n")
        return str(path)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    stand_in = StandIn(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", stand_in)
    return stand_in


@pytest.fixture(scope="module")
def model():
    tiny = dict(layers=1, features=3, head_features=4, first_kernel=3, num_classes=2)
    return prnn.ImageModel(*model_and_parameters("pixel_cnn", (4, 5, 1), 3, **tiny), ["cat", "dog"])


def test_push_and_load(hub, model):
    assert model.push_to_hub("me/a", private=True, token="t") == "https://hub/me/a/commit/1"
    files = ["model.safetensors", "README.md"]
    assert hub.calls == [("token", "t"), ("private", True), ("files", files)]
    loaded = prnn.from_pretrained("me/a", revision="main", token="t")
    assert hub.calls[-1] == ("download", "me/a", "model.safetensors", "main", "t")
    assert loaded.pixel_rnn == model.pixel_rnn and loaded.class_names == ("cat", "dog")
    jax.tree.map(np.testing.assert_array_equal, loaded.params, model.params)


def test_the_card_says_what_the_model_is_and_how_to_load_it(hub, model):
    model.push_to_hub("a")
    card = (hub.folder / "me/a/README.md").read_text()
    assert card.startswith("---\nlibrary_name: pixel-rnn-jax\n") and f"`{model!r}`" in card
    assert "Images: 4 rows, 5 columns and 1 channels of integers from 0 to 2\n" in card
    assert "Classes: cat, dog\n" in card
    assert 'prnn.from_pretrained("me/a")' in card


def test_another_upload_keeps_the_card(hub, model):
    model.push_to_hub("me/a")
    (hub.folder / "me/a/README.md").write_text("My words.")
    model.push_to_hub("me/a")
    assert hub.calls[-1] == ("files", ["model.safetensors"])
    assert (hub.folder / "me/a/README.md").read_text() == "My words."


def test_the_card_of_a_density(hub):
    tiny = dict(layers=1, features=3, head_features=4, output="gaussian_mixture")
    model = prnn.ImageModel(*model_and_parameters("pixel_cnn", (4, 5, 1), 0, **tiny))
    model.push_to_hub("me/a")
    card = (hub.folder / "me/a/README.md").read_text()
    assert "channels of real numbers\n" in card and "Classes" not in card


def test_mistakes(hub, model):
    message = "me/a cannot be read from the Hub: 404 Client Error. Repository Not Found for url: "
    with pytest.raises(prnn.UserError, match=message):
        prnn.from_pretrained("me/a")
    (hub.folder / "me/a").mkdir(parents=True)
    (hub.folder / "me/a/model.safetensors").write_text("other")
    with pytest.raises(prnn.UserError, match="model.safetensors is not a safetensors file"):
        prnn.from_pretrained("me/a")
    hub.offline = True
    with pytest.raises(prnn.UserError, match="me/a cannot be written to on the Hub: no route to"):
        model.push_to_hub("me/a")
    with pytest.raises(prnn.UserError, match="parameters do not fit"):
        prnn.ImageModel(model.pixel_rnn, {}).push_to_hub("me/a")


def test_the_package_is_missing(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    for call in (lambda: prnn.from_pretrained("me/a"), lambda: model.push_to_hub("me/a")):
        with pytest.raises(prnn.UserError, match=r"pip install 'pixel-rnn-jax\[hub\]'$"):
            call()


def test_the_stand_in_is_like_the_package():
    """Where huggingface_hub is installed: what is called takes these arguments."""
    package = pytest.importorskip("huggingface_hub")
    import inspect

    def takes(function, *names):
        assert {*names} <= inspect.signature(function).parameters.keys()

    takes(package.HfApi, "token")
    takes(package.HfApi.create_repo, "repo_id", "private", "exist_ok")
    takes(package.HfApi.file_exists, "repo_id", "filename")
    takes(package.HfApi.create_commit, "repo_id", "operations", "commit_message")
    takes(package.CommitOperationAdd, "path_in_repo", "path_or_fileobj")
    takes(package.hf_hub_download, "repo_id", "filename", "revision", "token")
