"""Models on the Hugging Face Hub: a repository holds the file of a model and a card."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from pixel_rnn_jax.errors import UserError

FILE, CARD = "model.safetensors", "README.md"


class Facts(NamedTuple):
    """What a card says of a model: a line about it, (H, W, C), K and the names of its classes."""

    summary: str
    image_shape: tuple[int, int, int]
    levels: int
    class_names: Sequence[str]


def push(repo_id: str, content: bytes, facts: Facts, *, private: bool, token: str | None) -> str:
    """Uploads the content of a file, and a card where there is none; returns their address.

    Raises:
        UserError: The Hub refuses or cannot be reached, or huggingface_hub is not installed.
    """
    library = _library()
    try:
        api = library.HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        files = {FILE: content}
        if not api.file_exists(repo_id, CARD):
            files[CARD] = card(repo_id, facts).encode()
        changes = [
            library.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data)
            for name, data in files.items()
        ]
        commit = api.create_commit(repo_id, changes, commit_message="Upload a model")
        return str(commit.commit_url)
    except Exception as error:  # The network, HTTP and the library have their own types.
        raise UserError(f"{repo_id} cannot be written to on the Hub: {_reason(error)}") from error


def fetch(repo_id: str, *, revision: str | None, token: str | None) -> str:
    """Downloads the file of a model, or finds it among earlier downloads; returns its path.

    Raises:
        UserError: It cannot be read, or huggingface_hub is not installed.
    """
    library = _library()
    try:
        return str(library.hf_hub_download(repo_id, FILE, revision=revision, token=token))
    except Exception as error:
        raise UserError(f"{repo_id} cannot be read from the Hub: {_reason(error)}") from error


def card(repo_id: str, facts: Facts) -> str:
    """Returns a model card in Markdown."""
    height, width, channels = facts.image_shape
    values = f"integers from 0 to {facts.levels - 1}" if facts.levels else "real numbers"
    classes = f"- Classes: {', '.join(facts.class_names)}\n" if facts.class_names else ""
    return f"""---
library_name: pixel-rnn-jax
tags:
- jax
---

# {repo_id.rpartition("/")[2]}

A model of images after *Pixel Recurrent Neural Networks*, of the package pixel-rnn-jax. It gives
every image its exact log-probability (or log-density), draws images and completes them.

- Model: `{facts.summary}`
- Images: {height} rows, {width} columns and {channels} channels of {values}
{classes}
```python
import pixel_rnn_jax as prnn  # pip install -e '.[hub]' in a checkout of pixel-rnn-jax

model = prnn.from_pretrained("{repo_id}")
```
"""


def _library() -> Any:
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "models on the Hugging Face Hub need a package that is not installed: "
            "pip install 'pixel-rnn-jax[hub]'"
        ) from error
    return huggingface_hub


def _reason(error: Exception) -> str:
    """Returns a message of several lines, with blank ones, as one."""
    return " ".join(str(error).split()) or type(error).__name__
