"""Paths that people write."""

from pathlib import Path

import pytest

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.paths import expanded


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    assert expanded("~/runs") == "/home/ada/runs"
    assert expanded(Path("runs/~a")) == expanded(b"runs/~a") == "runs/~a"
    assert expanded("gs://bucket/~") == "gs://bucket/~"


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (3, "workdir must be a path, got 3"),
        (None, "workdir must be a path, got None"),
        ("a\0b", "workdir must be a path, got 'a\\x00b', which has a NUL character"),
        (
            "~no-such-user/x",
            "workdir '~no-such-user/x': there is no user 'no-such-user'; write ./~no-such-user/x "
            "for a path of that name",
        ),
    ],
)
def test_what_is_no_path(path, message):
    with pytest.raises(UserError) as caught:
        expanded(path, "workdir")
    assert str(caught.value) == message
