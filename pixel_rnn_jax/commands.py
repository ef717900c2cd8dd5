"""What the commands do with a trained model: images from a run's folder to files and back."""

import contextlib
import math
import warnings
from pathlib import Path

import jax
import numpy as np

from pixel_rnn_jax import (
    block_coder,
    data,
    distributed,
    likelihoods,
    pictures,
    sources,
    terminal,
)
from pixel_rnn_jax import compress as codec
from pixel_rnn_jax.complete import is_exact
from pixel_rnn_jax.config import DataConfig, read_config
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import load
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.sample import as_levels, every_class

PIXEL_MAP_IMAGES = 16
ROW = 10
"""Images of each class that `sample` draws unless it is told how many."""


def sample(
    workdir: str,
    out: str,
    *,
    n: int | None,
    temperature: float,
    seed: int,
    label: int | None = None,
) -> None:
    """Draws images from the trained model of a workdir.

    Args:
        workdir: Where the model was trained.
        out: See `pictures.write_images`. An .npz file has the values of a density as they were
            drawn, the other forms have them as levels.
        n: Number of images; None takes 64, or with classes some of each.
        temperature: What logits are divided by; 0 takes the most probable value of each pixel.
        seed: Of the random draws.
        label: The class of all images, for a model with classes; None draws as many of each class,
            with a row of the picture for each if n is a multiple of the classes.

    Raises:
        UserError: There is no trained model, an argument is impossible, or `out` cannot be written.
    """
    model = load(workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    classes = model.config.classes
    n = n or (ROW * classes if classes and label is None else 64)
    labels = every_class(n, classes) if label is None else np.full(n, label)
    images, log_probs = model.sample(
        jax.random.key(seed), n, labels, temperature=temperature, return_log_prob=True
    )
    if Path(out).suffix != ".npz":
        images = as_levels(model.module, images)
    columns = n // classes if classes and label is None and n % classes == 0 else None
    pictures.write_images(images, model.levels, out, columns)
    nats = -float(np.mean(log_probs))
    bits = likelihoods.bits_per_dim(nats, math.prod(model.image_shape))
    print(f"{out}: {n:,} samples, on average {nats:.2f} nats, {bits:.4f} bits/dim")


def complete(
    workdir: str,
    out: str,
    *,
    images: str | None,
    n: int | None,
    known: str,
    particles: int,
    seed: int,
) -> None:
    """Completes partly known images.

    A `.png` shows each original, what was known of it, and its completion; other forms of `out`
    hold the completed images alone.

    Args:
        workdir: Where the model was trained.
        out: See `pictures.write_images`.
        images: A folder of images, or an .npy or .npz file; None takes the run's test split.
        n: Number of images, from the first on; None takes all of `images`, or 16 of the test split.
        known: See `pictures.known_mask`.
        particles: See `ImageModel.complete`.
        seed: Of the random draws.

    Raises:
        UserError: There is no trained model, the images do not fit it, an argument is impossible,
            or `out` cannot be written.
    """
    config, model = read_config(workdir), load(workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    mask = pictures.known_mask(known, model.image_shape)
    if images is None:
        originals, labels = _first(data.source_of(config, "test"), n or 16)
    else:
        records = _open_images(images)
        indices = np.arange(len(records.keys))[:n]
        originals, labels = records.read(indices), _labels(records, indices, config.model.classes)
    key = jax.random.key(seed)
    completion = model.complete(key, originals, mask, labels, particles=particles)
    completed = completion.images
    if Path(out).suffix == ".png":
        masks = np.broadcast_to(mask, completed.shape)
        picture = pictures.completions(originals, masks, completed, model.levels)
        pictures.write_picture(picture, out)
    else:
        pictures.write_images(completed, model.levels, out)
    print(
        f"{out}: {len(completed):,} completions; the known values have "
        f"{-completion.log_prob_known.mean():.2f} nats on average"
    )
    if particles > 1:
        smallest = completion.effective_sample_size.min()
        print(f"effective sample size: at least {smallest:.1f} of {particles} particles")
    elif not is_exact(model.module, mask):
        print("known values that come after unknown ones were not looked at: --particles=64 does")


def compress(workdir: str, out: str, *, images: str) -> None:
    """Compresses images without loss.

    Args:
        workdir: Where the model was trained.
        out: The compressed file.
        images: A folder of images, or an .npy or .npz file.

    Raises:
        UserError: There is no trained model, the images do not fit it, or `out` cannot be written.
    """
    model = load(workdir)
    records = _open_images(images)
    count = len(records.keys)
    parts = (
        np.arange(start, min(start + block_coder.LANES, count))
        for start in range(0, count, block_coder.LANES)
    )
    classes = model.config.classes
    batches = (Batch(records.read(part), _labels(records, part, classes)) for part in parts)
    if Path(out).is_dir():
        raise UserError(f"{out} is a folder: give --out the name of a file")
    unfinished = Path(f"{out}.unfinished")  # What has the name `out` is always whole.
    try:
        unfinished.parent.mkdir(parents=True, exist_ok=True)
        with unfinished.open("wb") as stream:
            codec.write(model.module, model.params, batches, count, stream)
        size = unfinished.stat().st_size
        unfinished.replace(out)
    except OSError as error:
        raise UserError(f"{out} cannot be written: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            unfinished.unlink()
    values = count * math.prod(model.image_shape)
    raw = math.ceil(values * (model.levels - 1).bit_length() / 8)
    print(
        f"{out}: {size:,} bytes for {count:,} images, {8 * size / values:.4f} bits/dim "
        f"({raw:,} bytes uncompressed)"
    )


def decompress(workdir: str, out: str, *, file: str, skip_damaged: bool) -> None:
    """Writes the images that `compress` was given; an .npz file has their classes as well.

    Args:
        workdir: Where the model was trained.
        out: See `pictures.write_images`.
        file: The compressed file.
        skip_damaged: Whether to leave out the images of damaged blocks, with a warning.

    Raises:
        UserError: There is no trained model, the file is damaged or comes from another model or
            kind of machine, or `out` cannot be written.
    """
    model = load(workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    try:
        with Path(file).open("rb") as stream:
            blocks = codec.read(model.module, model.params, stream, skip_damaged=skip_damaged)
            with warnings.catch_warnings(record=True) as lost:
                warnings.simplefilter("always")
                images, labels = codec.joined(model.module, blocks)
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    pictures.write_images(images, model.levels, out, labels=labels)
    print(f"{out}: {len(images):,} images")
    for warning in lost:
        print(warning.message)


def pixel_map(workdir: str, out: str, *, split: str) -> None:
    """Draws the first images of a split, each beside its negative log-likelihood by pixel.

    Args:
        workdir: Where the model was trained.
        out: A .png file.
        split: As in `evaluate.evaluate`.

    Raises:
        UserError: There is no trained model, there is no such split, or `out` cannot be written.
    """
    pictures.check_picture_out(out)
    model = load(workdir)
    config = read_config(workdir)
    images, labels = _first(data.source_of(config, split), PIXEL_MAP_IMAGES)
    nats = -model.log_prob(images, labels, per_pixel=True).sum(-1)
    picture = pictures.pixel_map(as_levels(model.module, images), nats, model.levels)
    if distributed.first():
        pictures.write_picture(picture, out)
    terminal.say(f"{out}: {len(images)} images; white is {nats.max():.2f} nats, black is none")


def _first(source: data.Source, n: int) -> Batch:
    """Returns the first n images of a split, or all if there are fewer."""
    return source.batch(np.arange(min(n, len(source))))


def _labels(records: sources.Records, indices: np.ndarray, classes: int) -> np.ndarray | None:
    """Returns the classes of images that the user has given, for a model with classes.

    Raises:
        UserError: They have none.
    """
    if not classes:
        return None
    if records.labels is None:
        raise UserError(
            f"the model has {classes} classes, but {records.name} has no labels: give --images an "
            ".npz file with an array `labels`"
        )
    return records.labels(indices)


def _open_images(path: str) -> sources.Records:
    """Opens all images of a folder or of an .npy or .npz file as they are stored.

    Raises:
        UserError: There are none, or they are not of one size with integer values.
    """
    # An absolute path is never taken for the name of a TFDS set.
    config = DataConfig(name=str(Path(path).expanduser().absolute()))
    try:
        return sources.open_records(config, "all")
    except UserError as error:  # It speaks of the field of a config, where such paths mostly stand.
        raise UserError(str(error).replace("data.name", "--images")) from error
