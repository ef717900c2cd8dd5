"""Workdirs in a bucket of Google Cloud Storage (gs://): whether one can be used, and what failed.

Three libraries reach a bucket: gcsfs, which epath uses for all files, TensorStore for the arrays of
checkpoints, and google-cloud-storage, with which Orbax asks for the kind of the bucket.
"""

import logging
import os
import sys
from urllib.parse import urlsplit

from etils import epath

from pixel_rnn_jax.errors import UserError

START_S = 10
"""How long the bucket may take to answer at the start."""


def check(workdir: epath.PathLike) -> None:
    """Makes sure of the bucket that a workdir is in, if it is in one, before any work is done.

    The first call in a process switches off the messages of gcsfs there.

    Raises:
        UserError: There is no such bucket, or it cannot be reached or not be used; gcsfs is not
            installed; or it is a bucket of somebody else's than Google.
    """
    if "://" not in os.fspath(workdir):
        return
    if not os.fspath(workdir).startswith("gs://"):
        raise UserError(f"{workdir} is neither a folder nor in a bucket (gs://BUCKET/FOLDER)")
    try:
        import gcsfs  # noqa: F401
        from google.api_core.exceptions import Forbidden, NotFound, Unauthorized
        from google.cloud import storage
        from google.cloud.storage.retry import DEFAULT_RETRY
    except ImportError as error:
        raise UserError(
            f"{workdir} needs packages that are not installed: pip install 'pixel-rnn-jax[gcs]'"
        ) from error
    # It logs each error with its stack before it raises it; what is raised is told in one sentence.
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    name, folder = urlsplit(os.fspath(workdir))[1:3]
    retry = DEFAULT_RETRY.with_timeout(START_S)
    try:
        # As Orbax does. And to create a folder in a bucket that is not there would create that.
        bucket = storage.Client().get_bucket(name, retry=retry)
        list(bucket.list_blobs(max_results=1, prefix=folder[1:], retry=retry))
    except NotFound as error:
        raise UserError(
            f"there is no bucket gs://{name}: create it, or choose another --workdir"
        ) from error
    except (Forbidden, Unauthorized) as error:
        raise UserError(
            f"gs://{name} may not be used ({reason(error)}): give yourself the right to get the "
            "bucket (storage.buckets.get) and to list, read, write and delete its objects"
        ) from error
    except Exception as error:
        raise UserError(
            f"gs://{name} cannot be reached ({reason(error)}): look at its name, the network and "
            "your credentials (gcloud auth application-default login)"
        ) from error


def errors() -> tuple[type[Exception], ...]:
    """Returns what reading and writing files may raise; the libraries of buckets have their own."""
    if "gcsfs" not in sys.modules:
        return (OSError,)
    from aiohttp import ClientError
    from gcsfs.retry import HttpError
    from google.auth.exceptions import GoogleAuthError

    return OSError, ClientError, HttpError, GoogleAuthError


def reason(error: BaseException) -> str:
    """Returns in a few words what has failed: the system's, or what a server says."""
    for link in chain(error):
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    return (str(error).strip() or type(error).__name__).splitlines()[-1]


def chain(error: BaseException) -> list[BaseException]:
    """Returns an error and those that have led to it, the first one last."""
    links = [error]
    while (earlier := links[-1].__cause__ or links[-1].__context__) is not None:
        links.append(earlier)
    return links
