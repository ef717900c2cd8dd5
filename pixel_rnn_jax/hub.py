"""Models on the Hugging Face Hub: a repository holds the file of a model and a card.

The package huggingface_hub, of the extra `hub`, is imported when it is used.
"""

FILE, CARD = "model.safetensors", "README.md"


def push(repo_id: str, content: bytes, summary: str, private: bool, token: str | None) -> str:
    """Uploads the content of a file, and a card where there is none; returns their address."""
    import huggingface_hub

    api = huggingface_hub.HfApi(token=token)
    repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
    files = {FILE: content}
    if not api.file_exists(repo_id, CARD):
        files[CARD] = f"""---
library_name: pixel-rnn-jax
tags: [jax]
---

# {repo_id.rpartition("/")[2]}

A model of images after *Pixel Recurrent Neural Networks*: `{summary}`.

```python
import pixel_rnn_jax as prnn  # pip install -e '.[hub]' in a checkout of pixel-rnn-jax

model = prnn.from_pretrained("{repo_id}")
```
""".encode()
    changes = [
        huggingface_hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data)
        for name, data in files.items()
    ]
    commit = api.create_commit(repo_id, changes, commit_message="Upload a model")
    return str(commit.commit_url)
