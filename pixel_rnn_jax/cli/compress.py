"""The verbs `compress` and `append`, which write compressed files."""

import contextlib
import fcntl
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pixel_rnn_jax import image_model, outputs
from pixel_rnn_jax.cli.archive import opened
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.cli.images import open_images
from pixel_rnn_jax.codec import archive
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.terminal import counted, show_file


def compress(values: Flags) -> None:
    """Compresses images without loss."""
    _check_images(values, "compress")
    _compress(values, values.out, archive.write, fast=values.fast)


def append(values: Flags) -> None:
    """Adds images to a compressed file."""
    _check_images(values, "append")
    if values.file == "-":
        raise UserError("append needs a file, not the standard input: it writes to it as well")
    with opened(values, "append") as old, _locked(values.file):
        _compress(values, values.file, archive.append, old)


@contextlib.contextmanager
def _locked(name: str) -> Iterator[None]:
    """Keeps others from appending to a file meanwhile, where it can be locked."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(Path(name).open("r+b"))  # NFS locks what may be written.
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another append to {name} has not ended: append after it") from None
        except OSError:
            pass
        yield


def _check_images(values: Flags, verb: str) -> None:
    if not values.images:
        raise UserError(
            f"{verb} needs --images=PATH, a folder, an image file, or an .npy or .npz file"
        )


def _compress(
    values: Flags, out: str, write: Callable[..., int], *old: BinaryIO, **form: Any
) -> None:
    model = image_model.load(values.workdir)
    images = open_images(values.images, model.pixel_rnn, model.class_names, values.split)
    source = archive.Source(len(images), images.batch, images.file_names(), images.mode)
    with outputs.writing(out) as file:
        size = write(model.pixel_rnn, model.params, *old, source, file, **form)
        size -= old[0].tell() if old else 0
        if old and not os.path.samestat(os.stat(out), os.fstat(old[0].fileno())):
            raise UserError(f"{out} was replaced meanwhile, as by another append: append again")
    dims = len(images) * math.prod(model.image_shape)
    raw = math.ceil(dims * (model.levels - 1).bit_length() / 8)
    bits = f"{8 * size / dims:.4f} bits/dim" if dims else "no bits/dim"
    what = counted(len(images), "more image" if old else "image")
    show_file(out, f"{size:,} bytes for {what}, {bits} ({raw:,} bytes uncompressed)")
