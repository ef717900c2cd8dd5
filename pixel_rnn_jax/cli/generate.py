"""The verbs `sample` and `complete`."""

import functools
import math
from pathlib import Path

import jax
import numpy as np
from absl import flags
from absl.flags import FlagValues

from pixel_rnn_jax import data, image_model, pictures
from pixel_rnn_jax.cli.flags import out_flag, seed_flag
from pixel_rnn_jax.cli.images import open_images, read_batch
from pixel_rnn_jax.generation.complete import is_exact
from pixel_rnn_jax.generation.sample import as_levels, every_class
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.runs.workdir import read_config
from pixel_rnn_jax.terminal import say

ROW = 10
"""Images of each class that `sample` draws unless it is told how many."""


def sample_flags(values: FlagValues) -> None:
    """Defines the flags of `sample`."""
    integer = functools.partial(flags.DEFINE_integer, lower_bound=0, flag_values=values)
    integer("n", None, "Number of images. Default: 64, or 10 of each class.", lower_bound=1)
    out_flag(values, "samples.png")
    flags.DEFINE_float(
        "temperature",
        1.0,
        "What the logits are divided by: below 1 the likely becomes likelier, and 0 takes the most "
        "probable value of each pixel; 1 is the model itself.",
        lower_bound=0,
        flag_values=values,
    )
    integer(
        "label",
        None,
        "Of a model with classes: the class of all images. Default: as many of each class, and in "
        "a picture a row for each class if --n is a multiple of their number.",
    )
    seed_flag(values)


def sample(values: FlagValues) -> None:
    """Draws new images."""
    out, n, label = values.out, values.n, values.label
    model = image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    classes = model.config.classes
    n = n or (ROW * classes if classes and label is None else 64)
    labels = every_class(n, classes) if label is None else np.full(n, label)
    images, log_probs = model.sample(
        jax.random.key(values.seed),
        n,
        labels,
        temperature=values.temperature,
        return_log_prob=True,
    )
    if Path(out).suffix != ".npz":  # Which keeps the values of a density as they were drawn.
        images = as_levels(model.model, images)
    columns = n // classes if classes and label is None and n % classes == 0 else None
    pictures.write_images(images, model.levels, out, columns)
    nats = -float(np.mean(log_probs))
    bits = bits_per_dim(nats, math.prod(model.image_shape))
    say(f"{out}: {n:,} samples, on average {nats:.2f} nats, {bits:.4f} bits/dim")


def complete_flags(values: FlagValues) -> None:
    """Defines the flags of `complete`."""
    text = functools.partial(flags.DEFINE_string, flag_values=values)
    integer = functools.partial(flags.DEFINE_integer, lower_bound=1, flag_values=values)
    text(
        "images",
        None,
        "Images to complete: a folder, or an .npy or .npz file (for a model with classes an .npz "
        "file with an array `labels`). Default: the run's test split.",
    )
    integer(
        "n",
        None,
        "Number of images, from the first on. Default: all of --images, or 16 of the test split.",
    )
    text(
        "known",
        "top_half",
        "What is known of each: top_half, bottom_half, left_half, right_half, or an image file of "
        "the same size in which what is known is white.",
    )
    integer(
        "particles",
        1,
        "With 1, values are drawn given what is above and to the left. More, such as 64, take "
        "known values further on into account.",
    )
    out_flag(values, "completions.png")
    seed_flag(values)


def complete(values: FlagValues) -> None:
    """Draws the unknown part of images given the known one."""
    out, particles = values.out, values.particles
    config, model = read_config(values.workdir), image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    mask = pictures.known_mask(values.known, model.image_shape)
    if values.images is None:
        source = data.open_source(config, "test")
        images, labels = source.batch(np.arange(min(values.n or 16, len(source))))
    else:
        records = open_images(values.images)
        images, labels = read_batch(
            records, np.arange(len(records.keys))[: values.n], model.config.classes
        )
    key = jax.random.key(values.seed)
    found = model.complete(key, images, mask, labels, particles=particles)
    if Path(out).suffix == ".png":
        masks = np.broadcast_to(mask, found.images.shape)
        picture = pictures.completions(images, masks, found.images, model.levels)
        pictures.write_picture(picture, out)
    else:
        pictures.write_images(found.images, model.levels, out)
    say(
        f"{out}: {len(found.images):,} completions; the known values have "
        f"{-found.log_prob_known.mean():.2f} nats on average"
    )
    if particles > 1:
        smallest = found.effective_sample_size.min()
        say(f"effective sample size: at least {smallest:.1f} of {particles} particles")
    elif not is_exact(model.model, mask):
        say("known values that come after unknown ones were not looked at: --particles=64 does")
