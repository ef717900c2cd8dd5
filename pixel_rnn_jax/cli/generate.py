"""The commands `sample` and `complete`."""

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from pixel_rnn_jax.cli import flags

with epy.lazy_imports():
    import jax

    from pixel_rnn_jax import data
    from pixel_rnn_jax import model as models
    from pixel_rnn_jax.data import pictures
    from pixel_rnn_jax.model.generation import complete as complete_lib
    from pixel_rnn_jax.runs import source
    from pixel_rnn_jax.system import files, terminal

IMAGES, ROW, TEST_IMAGES = 64, 10, 16
"""Images that `sample` draws by default, in all and of each class, and that `complete` takes."""


def sample(arguments: Namespace) -> None:
    """Draws new images; an .npz file gets their classes or conditions as well."""
    n, label, columns = arguments.n, arguments.label, None
    rows: Sequence[str] = ()
    model = source.load(arguments.source)
    pictures.check_out(arguments.out, model.levels, model.image_shape[-1])
    classes = model.config.condition.classes
    condition: Any = None
    if arguments.condition is not None:
        with files.error_context(arguments.condition):
            content = files.load_arrays(arguments.condition)
            condition = (content if isinstance(content, np.ndarray) else content["condition"])[:n]
            n = len(condition)
    elif label is not None:
        n = n or IMAGES
        condition = np.full(n, flags.label_of(label, model))
    elif classes:
        n = n or ROW * classes
        condition = data.balanced_classes(n, classes)
        if n % classes == 0:
            columns, rows = n // classes, model.class_names or [*map(str, range(classes))]
    n = n or IMAGES
    key = jax.random.key(arguments.seed)
    if arguments.temperature == 1:
        images, log_prob = model.sample_and_log_prob(key, n, condition)
    else:  # The images have another distribution than the model's.
        images = model.sample(key, n, condition, temperature=arguments.temperature)
        log_prob = model.log_prob(images, condition)
    arrays = flags.condition_arrays(model, condition)
    drawn = np.asarray(images)
    pictures.write_images(drawn, model.levels, arguments.out, columns, arrays, rows=rows)
    nats, num_values = -float(log_prob.mean()), model.pixel_rnn.num_values
    bits = f", {models.bits_per_dim(nats, num_values):.4f} bits/dim" if model.levels else ""
    count = terminal.plural(n, "sample")
    terminal.print_result(f"{arguments.out}: {count}, on average {nats:.2f} nats{bits}")


def sample_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    help_ = f"number of images (default: {IMAGES}, {ROW} of each class, or all of --condition)"
    flags.draw_flags(parser, help_, "samples.png")
    help_ = "divides the logits; 0 takes the most probable values (default: 1, the model itself)"
    temperature = flags.at_least(0, float)
    parser.add_argument("--temperature", type=temperature, default=1.0, help=help_)
    add = parser.add_mutually_exclusive_group().add_argument
    help_ = "number or name of the class of all images (default: all classes evenly)"
    add("--class", dest="label", help=help_)
    help_ = "an .npy file, or an .npz file with a key `condition`: one image is drawn for each row"
    add("--condition", type=flags.path, help=help_)


def complete(arguments: Namespace) -> None:
    """Draws the unknown part of images given the known one."""
    out, particles = arguments.out, arguments.particles
    run = source.open_run(arguments.source)
    split, model = flags.open_split(arguments, run), run.image_model
    pictures.check_out(out, model.levels, model.image_shape[-1])
    mask = pictures.known_mask(arguments.known, model.image_shape)
    n = arguments.n or (len(split) if arguments.images else TEST_IMAGES)
    images, condition = split.batch(data.evenly_spaced(len(split), n))
    key = jax.random.key(arguments.seed)
    result = model.complete(key, images, mask, condition, particles=particles)
    if Path(out).suffix == ".png":
        masks = np.broadcast_to(mask, images.shape)
        picture = pictures.completions(images, masks, result.images, model.levels)
        with files.atomic_write(out) as file:
            file.write(pictures.png(picture))
    else:
        pictures.write_images(np.asarray(result.images), model.levels, out)
    count = terminal.plural(len(images), "completion")
    nats = 0.0 - float(result.log_evidence.mean())  # Not -0.
    terminal.print_result(f"{out}: {count}; the known values have {nats:.2f} nats on average")
    if particles > 1:
        smallest = result.effective_sample_size.min()
        terminal.log(f"effective sample size: at least {smallest:.1f} of {particles} particles")
    elif not complete_lib.is_exact(model.pixel_rnn.scales, mask):
        terminal.log("known values that come after unknown ones were ignored: use --particles=64")


def complete_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    flags.images_flags(parser)
    help_ = f"number of images (default: all of --images, or {TEST_IMAGES} of the test split)"
    flags.draw_flags(parser, help_, "completions.png")
    halves = "top_half, bottom_half, left_half, right_half"
    help_ = f"{halves}, or an image file whose white pixels are known (default: %(default)s)"
    parser.add_argument("--known", default="top_half", help=help_)
    help_ = "particles per image; use 64 if known values follow unknown ones (default: 1)"
    parser.add_argument("--particles", type=flags.at_least(1), default=1, help=help_)
    flags.data_flags(parser)
