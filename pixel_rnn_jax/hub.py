"""Models on the Hugging Face Hub: a repository holds the file of a model and a card.

The package huggingface_hub, of the extra `hub`, is imported when it is used.
"""

from collections.abc import Sequence

FILE, CARD = "model.safetensors", "README.md"


def push(
    repo_id: str,
    content: bytes,
    *,
    summary: str,
    class_names: Sequence[str],
    private: bool,
    token: str | None,
) -> str:
    """Uploads the content of a file, and a card where there is none; returns their address."""
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    files = {FILE: content}
    if not api.file_exists(repo_id, CARD):
        files[CARD] = card(repo_id, summary, class_names).encode()
    changes = [
        huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data)
        for name, data in files.items()
    ]
    commit = api.create_commit(repo_id, changes, commit_message="Upload a model")
    return str(commit.commit_url)


def fetch(repo_id: str, *, revision: str | None, token: str | None) -> str:
    """Downloads the file of a model, or finds it among earlier downloads; returns its path."""
    import huggingface_hub

    return str(huggingface_hub.hf_hub_download(repo_id, FILE, revision=revision, token=token))


def card(repo_id: str, summary: str, class_names: Sequence[str]) -> str:
    """Returns a model card in Markdown."""
    classes = f"\nClasses: {', '.join(class_names)}.\n" if class_names else ""
    return f"""---
library_name: pixel-rnn-jax
tags: [jax]
---

# {repo_id.rpartition("/")[2]}

A model of images after *Pixel Recurrent Neural Networks*: `{summary}`.
{classes}
```python
import pixel_rnn_jax as prnn  # pip install -e '.[hub]' in a checkout of pixel-rnn-jax

model = prnn.from_pretrained("{repo_id}")
```
"""
