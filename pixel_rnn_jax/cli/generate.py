"""The verbs `sample` and `complete`."""

from pathlib import Path

import jax
import numpy as np

from pixel_rnn_jax import image_model, pictures
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.cli.images import open_images, read_condition, without_data
from pixel_rnn_jax.cli.verb_flags import IMAGES, ROW, TEST_IMAGES
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.complete import is_exact
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.runs.export import is_exported
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.terminal import counted, say, show
from pixel_rnn_jax.training.evaluate import open_split, with_data
from pixel_rnn_jax.training.previews import every_class

FEW = 8
"""Effective sample size below which `complete` advises more particles."""


def sample(values: Flags) -> None:
    """Draws new images."""
    out, n, label = values.out, values.n, values.label
    model = image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    classes, columns = model.config.num_classes, None
    if label is not None and not classes:
        raise UserError("--label is for a model with classes, and this one has none: leave it out")
    if label is not None and values.condition:
        raise UserError("leave out one of --label and --condition")
    condition = read_condition(values.condition)
    if condition is not None:
        if n and n > len(condition):
            say(f"fewer than --n: --condition has {counted(len(condition), 'row')}")
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
    show(f"{out}: {counted(n, 'sample')}, on average {in_words(nats, model)}")


def complete(values: Flags) -> None:
    """Draws the unknown part of images given the known one."""
    out, particles = values.out, values.particles
    if values.images is None:
        if is_exported(values.workdir):
            raise without_data(values.workdir)
        run = open_run(values.workdir, devices.local_mesh(1))
        model = image_model.of_run(run)
    else:
        model = image_model.load(values.workdir)
    pictures.check_out(out, model.levels, model.image_shape[-1])
    mask = pictures.known_mask(values.known, model.image_shape)
    if mask.all() or not mask.any():
        what = "every" if mask.all() else "no"
        raise UserError(
            f"--known={values.known} makes {what} pixel known: name another half, or a file in "
            "which some are white; whole images are drawn with sample"
        )
    if values.images is None:
        if values.data:
            run = with_data(run, values.workdir, values.data)
        source = open_split(run, values.split or "test")
        batch = source.batch(np.arange(min(values.n or TEST_IMAGES, len(source))))
    else:
        images = open_images(values.images, model.pixel_rnn, model.class_names, values.split)
        batch = images.batch(np.arange(len(images))[: values.n], known=mask)
    if values.n and values.n > len(batch.images):
        say(f"fewer than --n: {counted(len(batch.images), 'image')}")
    key = jax.random.key(values.seed)
    found = model.complete(key, batch.images, mask, batch.condition, particles=particles)
    if Path(out).suffix == ".png":
        masks = np.broadcast_to(mask, found.images.shape)
        picture = pictures.completions(batch.images, masks, found.images, model.levels)
        pictures.write_picture(picture, out)
    else:
        pictures.write_images(np.asarray(found.images), model.levels, out)
    if particles > 1:
        smallest = found.effective_sample_size.min()
        show(f"effective sample size: at least {smallest:.1f} of {particles} particles")
        if smallest < min(FEW, 0.9 * particles):
            say(f"few particles fit the known values: --particles={4 * particles} may fit better")
    elif not is_exact(model.pixel_rnn.scales, mask):
        say("known values that come after unknown ones were not looked at: --particles=64 does")
    nats = 0.0 - float(found.log_evidence.mean())  # Not -0.
    count = counted(len(found.images), "completion")
    show(f"{out}: {count}; the known values have {nats:.2f} nats on average")


def in_words(nats: float, model: ImageModel) -> str:
    """Returns nats per image, with bits/dim where values have levels."""
    dims = model.pixel_rnn.dims
    if not model.levels:
        return f"{nats:.2f} nats, {nats / dims:.4f} nats a value"
    return f"{nats:.2f} nats, {bits_per_dim(nats, dims):.4f} bits/dim"
