"""What the commands do with a trained model: images from a run's folder to files and back."""

import contextlib
import math
import warnings
from pathlib import Path

import jax
import numpy as np

from pixel_rnn_jax import block_coder, data, likelihoods, pictures, sources
from pixel_rnn_jax import compress as codec
from pixel_rnn_jax.complete import is_exact
from pixel_rnn_jax.config import DataConfig, read_config
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import load
from pixel_rnn_jax.images import value_dtype

PIXEL_MAP_IMAGES = 16


def sample(workdir: str, out: str, *, n: int, temperature: float, seed: int) -> None:
    """Draws images from the trained model of a workdir.

    Args:
        workdir: Where the model was trained.
        out: See `pictures.write_images`.
        n: Number of images.
        temperature: What logits are divided by; 0 takes the most probable value of each pixel.
        seed: Of the random draws.

    Raises:
        UserError: There is no trained model, an argument is impossible, or `out` cannot be written.
    """
    model = load(workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    images, log_probs = model.sample(
        jax.random.key(seed), n, temperature=temperature, return_log_prob=True
    )
    pictures.write_images(images, model.levels, out)
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
    model = load(workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    mask = pictures.known_mask(known, model.image_shape)
    if images is None:
        originals = _first(data.open_source(read_config(workdir).data, "test"), n or 16)
    else:
        records = _open_images(images)
        originals = records.read(np.arange(len(records.keys))[:n])
    completion = model.complete(jax.random.key(seed), originals, mask, particles=particles)
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
    elif not is_exact(mask):
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
    batches = (
        records.read(np.arange(start, min(start + block_coder.LANES, count)))
        for start in range(0, count, block_coder.LANES)
    )
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
    """Writes the images that `compress` was given.

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
    none = np.empty((0, *model.image_shape), value_dtype(model.levels))
    try:
        with Path(file).open("rb") as stream:
            blocks = codec.read(model.module, model.params, stream, skip_damaged=skip_damaged)
            with warnings.catch_warnings(record=True) as lost:
                warnings.simplefilter("always")
                images = np.concatenate([none, *blocks])
    except OSError as error:
        raise UserError(f"{file} cannot be read: {error.strerror}") from error
    pictures.write_images(images, model.levels, out)
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
    images = _first(data.open_source(read_config(workdir).data, split), PIXEL_MAP_IMAGES)
    nats = -model.log_prob(images, per_pixel=True).sum(-1)
    pictures.write_picture(pictures.pixel_map(images, nats, model.levels), out)
    print(f"{out}: {len(images)} images; white is {nats.max():.2f} nats, black is none")


def _first(source: data.Source, n: int) -> np.ndarray:
    """Returns the first n images of a split, or all if there are fewer."""
    return source.__getitems__(np.arange(min(n, len(source))))


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
