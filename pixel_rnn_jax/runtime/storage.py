"""Workdirs in a bucket of Google Cloud Storage (gs://): whether one can be used, and what failed.

Three libraries reach a bucket: gcsfs, which epath uses for all files, TensorStore for the arrays of
checkpoints, and google-cloud-storage, with which Orbax asks for the kind of the bucket.
"""

import contextlib
import functools
import logging
import os
import re
import sys
import textwrap
from typing import Any
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
    scheme, name, folder = urlsplit(os.fspath(workdir))[:3]
    if scheme != "gs" or not name:
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
    _silence_gcsfs()
    # Where TensorFlow is installed, to prepare data sets, epath would take its file system instead.
    os.environ.setdefault("EPATH_USE_TF", "false")
    retry = DEFAULT_RETRY.with_timeout(START_S)
    try:
        # As Orbax does. And to create a folder in a bucket that is not there would create that.
        with contextlib.closing(storage.Client()) as client:
            bucket = client.get_bucket(name, retry=retry)
            list(bucket.list_blobs(max_results=1, prefix=folder[1:], retry=retry))
    except NotFound as error:
        raise UserError(
            f"there is no bucket gs://{name}: create it, or choose another --workdir"
        ) from error
    except (Forbidden, Unauthorized) as error:
        said = error.message.partition(": ")[2]  # After the address.
        raise UserError(
            f"gs://{name} may not be used ({said}): give yourself the right to get the bucket "
            "(storage.buckets.get) and to list, read, write and delete its objects"
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
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return OSError, ClientError, HttpError, GoogleAPIError, GoogleAuthError


def reason(error: BaseException) -> str:
    """Returns in a few words what has failed: the system's, or what a server says."""
    for link in chain(error):
        if isinstance(link, OSError) and link.strerror:
            return link.strerror
    last = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return textwrap.shorten(last, 200, placeholder=" ...")  # TensorStore adds where it was.


def out_of_reach(error: BaseException) -> bool:
    """Whether an error of reading is the network's or a lack of rights, and no missing object."""
    own = tuple(kind for kind in errors() if kind is not OSError)
    # gcsfs raises OSError without a number for a lack of rights; TensorStore has statuses in text.
    signs = "^Forbidden: |PERMISSION_DENIED|UNAUTHENTICATED|UNAVAILABLE|DEADLINE_EXCEEDED"
    return any(isinstance(link, own) or re.search(signs, str(link)) for link in chain(error))


def chain(error: BaseException) -> list[BaseException]:
    """Returns an error and those that have led to it, the first one last."""
    links = [error]
    while (earlier := links[-1].__cause__ or links[-1].__context__) is not None:
        links.append(earlier)
    return links


@functools.cache
def _silence_gcsfs() -> None:
    """Keeps its messages off the terminal; what fails is raised, and told in one sentence.

    It logs each error with the stack; and the buffer of a file that could not be written is still
    in use when Python clears it away.
    """
    logging.getLogger("gcsfs").setLevel(logging.CRITICAL)
    others = sys.unraisablehook

    def unraisable(args: Any) -> None:
        if not isinstance(args.exc_value, BufferError):
            others(args)

    sys.unraisablehook = unraisable
