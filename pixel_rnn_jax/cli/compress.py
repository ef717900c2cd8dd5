"""The verbs `compress` and `decompress`."""

import contextlib
import math
from pathlib import Path

import numpy as np

from pixel_rnn_jax import image_model, pictures
from pixel_rnn_jax.cli.flags import Flags, condition_flag, images_flag, out_flag
from pixel_rnn_jax.cli.images import open_images, read_condition
from pixel_rnn_jax.codec import container
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.terminal import say


def compress_flags(values: Flags) -> None:
    """Defines the flags of `compress`."""
    images_flag(
        values, "compress", "A folder's are in the order of their names, which are not kept."
    )
    values.text("out", "The compressed file.", "images.prnn")


def compress(values: Flags) -> None:
    """Compresses images without loss."""
    if not values.images:
        raise UserError(
            "compress needs --images=PATH, a folder, an image file, or an .npy or .npz file"
        )
    out = values.out
    model = image_model.load(values.workdir)
    images = open_images(values.images, model.pixel_rnn, model.class_names)
    count = len(images)
    if Path(out).is_dir():
        raise UserError(f"{out} is a folder: give --out the name of a file")
    unfinished = Path(f"{out}.unfinished")  # A file named `out` is always complete.
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            container.write(model.pixel_rnn, model.params, images.batch, count, stream)
        size = unfinished.stat().st_size
        unfinished.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    dims = count * math.prod(model.image_shape)
    raw = math.ceil(dims * (model.levels - 1).bit_length() / 8)
    say(
        f"{out}: {size:,} bytes for {count:,} images, {8 * size / dims:.4f} bits/dim "
        f"({raw:,} bytes uncompressed)"
    )


def decompress_flags(values: Flags) -> None:
    """Defines the flags of `decompress`."""
    values.text("file", "The compressed file; --file= may be left out.")
    out_flag(values, "images.npz")
    condition_flag(values, "A file does not hold the vectors or maps of its images.")
    values.switch(
        "skip_damaged", "Leaves out the images of damaged blocks instead of stopping at the first."
    )


def decompress(values: Flags) -> None:
    """Decompresses a file of `compress`; an .npz file gets the classes as well."""
    file, out = values.file, values.out
    if not file:
        raise UserError("decompress needs a file, for example decompress images.prnn")
    model = image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    try:
        data = Path(file).read_bytes()
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    condition = read_condition(values.condition)
    (images, condition), lost = container.read(
        model.pixel_rnn, model.params, data, condition, skip_damaged=values.skip_damaged
    )
    if lost:
        say(lost)
    labels = condition if model.config.classes else None
    if labels is not None and model.class_names:
        labels = np.array(model.class_names)[labels]
    pictures.write_images(images, model.levels, out, labels=labels)
    say(f"{out}: {len(images):,} images")
