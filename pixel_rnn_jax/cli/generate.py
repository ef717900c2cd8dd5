"""The verbs `sample` and `complete`."""

import math
from pathlib import Path

import jax
import numpy as np

from pixel_rnn_jax import image_model, pictures
from pixel_rnn_jax.cli.flags import Flags, images_flag, out_flag, seed_flag
from pixel_rnn_jax.cli.images import open_images, read_batch
from pixel_rnn_jax.generation.complete import is_exact
from pixel_rnn_jax.generation.sample import as_levels, every_class
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.terminal import say
from pixel_rnn_jax.training.evaluate import open_split

IMAGES = 64
ROW = 10
"""Images of each class that `sample` draws by default."""
TEST_IMAGES = 16
"""Images of the test split that `complete` completes by default."""


def sample_flags(values: Flags) -> None:
    """Defines the flags of `sample`."""
    default = f"Default: {IMAGES}, or {ROW} of each class."
    values.integer("n", f"Number of images. {default}", lower_bound=1)
    out_flag(values, "samples.png")
    values.number(
        "temperature",
        "What the logits are divided by: below 1 the likely becomes likelier, and 0 takes the most "
        "probable value of each pixel; 1 is the model itself.",
        1.0,
        lower_bound=0,
    )
    values.integer(
        "label",
        "The class of all images, of a model with classes. Default: equally many images of each "
        "class, and in a picture a row for each class if --n is a multiple of their number.",
        lower_bound=0,
    )
    seed_flag(values)


def sample(values: Flags) -> None:
    """Draws new images."""
    out, n, label = values.out, values.n, values.label
    model = image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    classes = model.config.classes
    n = n or (ROW * classes if classes and label is None else IMAGES)
    labels = every_class(n, classes) if label is None else np.full(n, label)
    key = jax.random.key(values.seed)
    images, log_probs = model.sample(
        key, n, labels, temperature=values.temperature, return_log_prob=True
    )
    if Path(out).suffix != ".npz":  # Which keeps the values of a density as they were drawn.
        images = as_levels(model.pixel_rnn, images)
    columns = n // classes if classes and label is None and n % classes == 0 else None
    pictures.write_images(images, model.levels, out, columns)
    nats = -float(np.mean(log_probs))
    bits = bits_per_dim(nats, math.prod(model.image_shape))
    say(f"{out}: {n:,} samples, on average {nats:.2f} nats, {bits:.4f} bits/dim")


def complete_flags(values: Flags) -> None:
    """Defines the flags of `complete`."""
    images_flag(values, "complete", "Default: the run's test split.")
    default = f"Default: all of --images, or {TEST_IMAGES} of the test split."
    values.integer("n", f"Number of images, from the first on. {default}", lower_bound=1)
    values.text(
        "known",
        "What is known of each: top_half, bottom_half, left_half, right_half, or an image file of "
        "the same size in which what is known is white.",
        "top_half",
    )
    values.integer(
        "particles",
        "Completions of an image that are drawn side by side. With 1, values are drawn given what "
        "is above and to the left. More, such as 64, take known values further on into account.",
        1,
        lower_bound=1,
    )
    out_flag(values, "completions.png")
    seed_flag(values)


def complete(values: Flags) -> None:
    """Draws the unknown part of images given the known one."""
    out, particles = values.out, values.particles
    run = open_run(values.workdir, devices.local_mesh(1))
    model = image_model.ImageModel(run.model, run.params)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    mask = pictures.known_mask(values.known, model.image_shape)
    if values.images is None:
        source = open_split(run, "test")
        images, labels = source.batch(np.arange(min(values.n or TEST_IMAGES, len(source))))
    else:
        records = open_images(values.images)
        indices = np.arange(len(records.keys))[: values.n]
        images, labels = read_batch(records, indices, model.config.classes)
    key = jax.random.key(values.seed)
    found = model.complete(key, images, mask, labels, particles=particles)
    if Path(out).suffix == ".png":
        masks = np.broadcast_to(mask, found.images.shape)
        picture = pictures.completions(images, masks, found.images, model.levels)
        pictures.write_picture(picture, out)
    else:
        pictures.write_images(found.images, model.levels, out)
    nats = -found.log_prob_known.mean()
    count = f"{len(found.images):,} completions"
    say(f"{out}: {count}; the known values have {nats:.2f} nats on average")
    if particles > 1:
        smallest = found.effective_sample_size.min()
        say(f"effective sample size: at least {smallest:.1f} of {particles} particles")
    elif not is_exact(model.pixel_rnn, mask):
        say("known values that come after unknown ones were not looked at: --particles=64 does")
