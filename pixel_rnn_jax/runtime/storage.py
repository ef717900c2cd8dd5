"""Workdirs and exported models in a bucket of Google Cloud Storage (gs://)."""

import os

from etils import epath


def check(path: epath.PathLike) -> None:
    """Prepares for a path that may be in a bucket; call it before the path is used.

    Raises:
        ImportError: gcsfs, of the extra `gcs`, is not installed.
    """
    if not os.fspath(path).startswith("gs://"):
        return
    import fsspec
    import gcsfs  # noqa: F401

    # gcsfs would remember what it has listed, and not see what another process writes later.
    fsspec.config.conf.setdefault("gcs", {})["use_listings_cache"] = False
    # Where TensorFlow is installed, epath would use its file system instead.
    os.environ.setdefault("EPATH_USE_TF", "false")
