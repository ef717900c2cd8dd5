"""The verbs `sample` and `complete`."""

from pathlib import Path

import jax
import numpy as np

from pixel_rnn_jax import image_model, pictures
from pixel_rnn_jax.cli.flags import (
    Flags,
    condition_flag,
    data_flag,
    images_flag,
    out_flag,
    part_flag,
    seed_flag,
)
from pixel_rnn_jax.cli.images import open_images, read_condition
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.complete import is_exact
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.runs.export import is_exported
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.terminal import say
from pixel_rnn_jax.training.evaluate import open_split, with_data
from pixel_rnn_jax.training.previews import every_class

IMAGES = 64
ROW = 10
"""Images of each class that `sample` draws by default."""
FEW = 8
"""Effective sample size below which `complete` advises more particles."""
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
    values.text(
        "label",
        "The class of all images, of a model with classes: its number or its name. Default: "
        "equally many images of each class, and in a picture a row for each class if --n is a "
        "multiple of their number.",
    )
    condition_flag(values, "--n is their number.")
    seed_flag(values)


def sample(values: Flags) -> None:
    """Draws new images."""
    out, n, label = values.out, values.n, values.label
    model = image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    classes, columns = model.config.classes, None
    condition = read_condition(values.condition)
    if condition is not None:
        condition = condition[:n]
        n = len(condition)
    elif classes and label is None:
        n = n or ROW * classes
        condition = every_class(n, classes)
        columns = n // classes if n % classes == 0 else None
    else:
        n = n or IMAGES
        if label is not None:
            number = label.isdecimal() and label not in model.class_names
            condition = np.full(n, int(label) if number else label)
    images = model.sample(jax.random.key(values.seed), n, condition, temperature=values.temperature)
    pictures.write_images(np.asarray(images), model.levels, out, columns)
    nats = -float(model.log_prob(images, condition).mean())
    say(f"{out}: {n:,} samples, on average {in_words(nats, model)}")


def complete_flags(values: Flags) -> None:
    """Defines the flags of `complete`."""
    images_flag(values, "complete", "Default: the run's test split.")
    part_flag(values, "Default: all; without --images, test of the run.")
    data_flag(values)
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
    if values.images is None:
        if is_exported(values.workdir):
            raise UserError(
                f"{values.workdir} holds a model without its data set: give --images=PATH, or the "
                "workdir of the run"
            )
        run = open_run(values.workdir, devices.local_mesh(1))
        model = image_model.of_run(run)
    else:
        model = image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    mask = pictures.known_mask(values.known, model.image_shape)
    if values.images is None:
        if values.data:
            run = with_data(run, values.workdir, values.data)
        source = open_split(run, values.split or "test")
        batch = source.batch(np.arange(min(values.n or TEST_IMAGES, len(source))))
    else:
        images = open_images(values.images, model.pixel_rnn, model.class_names, values.split)
        batch = images.batch(np.arange(len(images))[: values.n], known=mask)
    key = jax.random.key(values.seed)
    found = model.complete(key, batch.images, mask, batch.condition, particles=particles)
    if Path(out).suffix == ".png":
        masks = np.broadcast_to(mask, found.images.shape)
        picture = pictures.completions(batch.images, masks, found.images, model.levels)
        pictures.write_picture(picture, out)
    else:
        pictures.write_images(np.asarray(found.images), model.levels, out)
    nats = -found.log_prob_known.mean()
    count = f"{len(found.images):,} completions"
    say(f"{out}: {count}; the known values have {nats:.2f} nats on average")
    if particles > 1:
        smallest = found.effective_sample_size.min()
        say(f"effective sample size: at least {smallest:.1f} of {particles} particles")
        if smallest < FEW:
            say(f"few particles fit the known values: --particles={4 * particles} may fit better")
    elif not is_exact(model.pixel_rnn.scales, mask):
        say("known values that come after unknown ones were not looked at: --particles=64 does")


def in_words(nats: float, model: ImageModel) -> str:
    """Returns nats per image, with bits/dim where values have levels."""
    dims = model.pixel_rnn.dims
    if not model.levels:
        return f"{nats:.2f} nats, {nats / dims:.4f} nats a value"
    return f"{nats:.2f} nats, {bits_per_dim(nats, dims):.4f} bits/dim"
