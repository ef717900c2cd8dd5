"""What a library says when a file cannot be read or written, in a few words."""

import errno
import os

import pytest

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import storage

TENSORSTORE = "{}: Error writing local file: No luck [os_error_code='{}'] [tensorstore_spec='...']"


def _system(code: int) -> OSError:
    return OSError(code, os.strerror(code))


def test_a_folder_that_would_be_taken_for_a_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="^/s3/team/run would be taken for s3://team/run: give"):
        storage.check("/s3/team/run")
    storage.check("s3/team/run")
    monkeypatch.setattr(os, "getcwd", lambda: "/gs/team")
    with pytest.raises(UserError, match="^run would be taken for gs://team/run: give"):
        storage.check("run")


@pytest.mark.parametrize(
    ("error", "reason", "out_of_reach"),
    [
        (_system(errno.ENOSPC), "the disk is full", False),
        (_system(errno.EDQUOT), "the disk is full", False),
        (_system(errno.EACCES), "Permission denied", True),
        (ValueError(TENSORSTORE.format("OUT_OF_RANGE", errno.EFBIG)), "File too large", False),
        (ValueError(TENSORSTORE.format("INTERNAL", errno.ENOSPC)), "the disk is full", False),
        (ValueError(TENSORSTORE.format("PERMISSION_DENIED", 13)), "Permission denied", True),
        (ValueError("UNAVAILABLE: " + "long " * 100), "UNAVAILABLE: " + "long " * 36 + "...", True),
        (ValueError("first line\nlast line"), "last line", False),
        (KeyError(), "KeyError", False),
    ],
)
def test_reason(error: Exception, reason: str, out_of_reach: bool) -> None:
    assert storage.reason(error) == reason
    assert storage.out_of_reach(error) == out_of_reach
    wrapper = RuntimeError("it failed")
    wrapper.__context__ = error
    assert (storage.reason(wrapper) == reason) == (storage.system_error(error) is not None)
    assert storage.out_of_reach(wrapper) == out_of_reach
