"""The commands that open a trained model: likelihoods, images, compressed files, one file."""

import json
import math
import os
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from etils import epy

from pixel_rnn_jax.cli import flags
from pixel_rnn_jax.system.errors import UserError

with epy.lazy_imports():
    import jax

    from pixel_rnn_jax import data, image_model
    from pixel_rnn_jax import model as model_lib
    from pixel_rnn_jax.codec import compression, format, weights
    from pixel_rnn_jax.data import pictures
    from pixel_rnn_jax.model.generation import complete as complete_lib
    from pixel_rnn_jax.runs import source
    from pixel_rnn_jax.system import devices, files, processes, terminal
    from pixel_rnn_jax.training import evaluate as evaluate_lib

IMAGES, ROW = 64, 10
"""Images that `sample` draws by default, in all and of each class."""
TEST_IMAGES = PIXEL_MAP_IMAGES = 16


def evaluate(arguments: Namespace) -> None:
    """Prints the likelihood of the images of a split, or of your own, in nats and bits/dim."""
    if arguments.per_value and not arguments.out:
        raise UserError("--per_value needs --out=FILE.npz")
    processes.join(arguments)
    run = source.open_run(arguments.source, devices.make_mesh())
    split, model = flags.select_split(arguments, run), run.image_model
    if arguments.per_value and len({*split.dataset.sizes}) > 1:
        raise UserError("--per_value is for images of one size")
    options = dict(per_value=arguments.per_value, part=arguments.part)
    evaluation = evaluate_lib.score(model.pixel_rnn, model.params, split, **options)
    name = arguments.split or (None if arguments.images else "test")
    if arguments.json:
        where = {"workdir": arguments.source, "path": arguments.images, "split": name}
        values = where | {"step": run.step} | evaluation.numbers()
        terminal.print_result(json.dumps(values, default=os.fspath))
    else:
        terminal.print_result(evaluation.report(str(arguments.images or name), run.step))
    names, nats = split.dataset.names(), evaluation.nats_per_image
    bits = np.asarray(model_lib.bits_per_dim(nats, evaluation.values))
    for row, (height, width) in enumerate(split.dataset.sizes if arguments.per_image else ()):
        text = f"{names[row]}: {height}x{width}, {nats[row]:.3f} nats"
        terminal.print_result(text + f", {bits[row]:.4f} bits/dim" * (not evaluation.real))
    if arguments.out and processes.is_first():
        arrays: dict[str, Any] = {"nats": nats, "names": np.array(names)}
        if not evaluation.real:
            arrays["bits_per_dim"] = bits
        if evaluation.nats_per_value is not None:
            arrays["nats_per_value"] = evaluation.nats_per_value
        with files.atomic_write(arguments.out) as file:
            np.savez(file, **arrays)
        terminal.log(f"{arguments.out}: the scores of {terminal.plural(len(nats), 'image')}")
    if arguments.pixel_map and processes.is_first():
        _draw_pixel_map(model, split, arguments)


def evaluate_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    flags.images_flags(parser)
    flags.part_flag(parser)
    add = parser.add_argument
    add("--out", type=flags.output(".npz"), help="an .npz file: nats, bits_per_dim, names")
    add("--per_image", action="store_true", help="print a line for each image")
    add("--per_value", action="store_true", help="write nats_per_value, of each value, too")
    help_ = f"a .png file: {PIXEL_MAP_IMAGES} images, each beside a map of the nats of its pixels"
    add("--pixel_map", type=flags.output(".png"), help=help_)
    add("--json", action="store_true", help="print the results as a JSON object")
    flags.process_flags(parser)
    flags.data_flags(parser)


def _draw_pixel_map(
    model: "image_model.ImageModel", split: "data.Split", arguments: Namespace
) -> None:
    # On this process's devices alone, wherever the parameters lie.
    local = image_model.ImageModel(model.pixel_rnn, jax.device_get(model.params))
    local.part, out = arguments.part or local.part, arguments.pixel_map
    images, nats = list[np.ndarray](), list[np.ndarray]()
    for row in data.evenly_spaced(len(split), PIXEL_MAP_IMAGES):
        batch = split.batch([row])
        images.append(batch.images[0])
        nats.append(-np.asarray(local.log_prob(*batch, per_value=True))[0].sum(-1))
    images, levels = pictures.as_levels(images, model.levels)
    picture, black, white = pictures.pixel_map(images, nats, levels)
    with files.atomic_write(out) as file:
        file.write(pictures.png(picture))
    terminal.log(f"{out}: {len(images)} images; white is {white:.2f} nats, black is {black:.2f}")


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
        condition = np.full(n or IMAGES, flags.label_of(label, model))
    elif classes:
        n = n or ROW * classes
        condition = data.balanced_classes(n, classes)
        if n % classes == 0:
            columns, rows = n // classes, model.class_names or [*map(str, range(classes))]
    n = n or IMAGES
    key = jax.random.key(arguments.seed)
    if arguments.temperature == 1:
        images, log_prob = model.sample_and_log_prob(key, n, condition, size=arguments.size)
    else:  # The images have another distribution than the model's.
        temperature, size = arguments.temperature, arguments.size
        images = model.sample(key, n, condition, size=size, temperature=temperature)
        log_prob = model.log_prob(images, condition)
    arrays = flags.condition_arrays(model, condition)
    drawn = np.asarray(images)
    pictures.write_images(drawn, model.levels, arguments.out, columns, arrays, rows=rows)
    nats, num_values = -float(log_prob.mean()), math.prod(drawn.shape[1:])
    bits = f", {model_lib.bits_per_dim(nats, num_values):.4f} bits/dim" if model.levels else ""
    count = terminal.plural(n, "sample")
    terminal.print_result(f"{arguments.out}: {count}, on average {nats:.2f} nats{bits}")


def sample_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    help_ = f"number of images (default: {IMAGES}, {ROW} of each class, or all of --condition)"
    flags.draw_flags(parser, help_, "samples.png")
    help_ = "divides the logits; 0 takes the most probable values (default: 1, the model itself)"
    temperature = flags.at_least(0, float)
    parser.add_argument("--temperature", type=temperature, default=1.0, help=help_)
    help_ = "height and width, as 64x64 (default: the training images')"
    parser.add_argument("--size", type=flags.size, metavar="HxW", help=help_)
    add = parser.add_mutually_exclusive_group().add_argument
    add("--class", dest="label", help="class of all images (default: all classes evenly)")
    help_ = "an .npy file, or an .npz file with a key `condition`: one image is drawn for each row"
    add("--condition", type=flags.path, help=help_)


def complete(arguments: Namespace) -> None:
    """Draws the unknown part of images given the known one."""
    out, particles = arguments.out, arguments.particles
    run = source.open_run(arguments.source)
    split, model = flags.select_split(arguments, run), run.image_model
    model.part = arguments.part or model.part
    pictures.check_out(out, model.levels, model.image_shape[-1])
    n = arguments.n or (len(split) if arguments.images else TEST_IMAGES)
    images, condition = split.batch(data.evenly_spaced(len(split), n))
    mask = pictures.known_mask(arguments.known, images.shape[1:])
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
    flags.part_flag(parser)
    help_ = "top_half, bottom_half, left_half, right_half, or an image file, white where known"
    parser.add_argument("--known", default="top_half", help=help_)
    help_ = "particles per image; use 64 if known values follow unknown ones (default: 1)"
    parser.add_argument("--particles", type=flags.at_least(1), default=1, help=help_)
    flags.data_flags(parser)


def compress(arguments: Namespace) -> None:
    """Compresses images without loss."""
    model, out = source.load(arguments.source), arguments.out
    pixel_rnn, split = model.pixel_rnn, flags.select_images(arguments, model)
    count, part, names = len(split), arguments.part or model.part, split.file_names
    images = (
        data.Batch(*(None if x is None else x[0] for x in split.batch([i]))) for i in range(count)
    )
    content = compression.compress(pixel_rnn, model.params, images, count, part, names)
    with files.atomic_write(out) as file:
        file.write(content)
    size = f"{len(content):,} bytes for {terminal.plural(count, 'image')}"
    values = pixel_rnn.image_shape[-1] * sum(map(math.prod, split.dataset.sizes))
    bits = 8 * len(content) / values
    terminal.print_result(f"{out}: {size}, {bits:.4f} bits/dim")


def compress_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    flags.images_flags(parser, required=True)
    flags.part_flag(parser)
    flags.file_flag(parser, "images.prnn")


def decompress(arguments: Namespace) -> None:
    """Decompresses a file; an .npz file gets names, classes or conditions as well."""
    model = source.load(arguments.source)
    pictures.check_out(arguments.out, model.levels, model.image_shape[-1])
    with files.error_context(arguments.file):
        content, skip = arguments.file.read_bytes(), arguments.skip_damaged
        _, blocks, _ = format.read_blocks(content, skip_damaged=skip)
        sizes = {run[1:] for block in blocks for run in block.runs()}
        if len(sizes) > 1 and arguments.out.endswith(".npz"):
            raise UserError(f"images of {len(sizes)} sizes: use --out=FOLDER or --out=FILE.png")
        (images, condition, names), lost = compression.decompress(
            model.pixel_rnn, model.params, content, skip_damaged=skip
        )
        for text in lost:
            terminal.log(text)
        arrays = {"names": np.array(names)} if len(names) else {}
        arrays |= flags.condition_arrays(model, condition)
        pictures.write_images(images, model.levels, arguments.out, arrays=arrays, names=names)
    terminal.print_result(f"{arguments.out}: {terminal.plural(len(images), 'image')}")


def decompress_flags(parser: ArgumentParser) -> None:
    info_flags(parser)
    flags.model_flags(parser)
    flags.out_flag(parser, "images.npz")
    parser.add_argument("--skip_damaged", action="store_true", help="leave out damaged blocks")


def info(arguments: Namespace) -> None:
    """Prints the content of a compressed file, without a model, and checks its checksums."""
    with files.error_context(arguments.file):
        content = arguments.file.read_bytes()
        header, blocks, _ = format.read_blocks(content)
    count = sum(block.length for block in blocks)
    runs = [run for block in blocks for run in block.runs()]
    values = header.channels * sum(math.prod(run) for run in runs)
    sizes = {f"{height}x{width}x{header.channels}" for _, height, width in runs}
    shape = sizes.pop() if len(sizes) == 1 else terminal.plural(len(sizes), "size")
    bits, images = 8 * len(content) / max(values, 1), terminal.plural(count, "image")
    size = f"{len(content):,} bytes in {terminal.plural(len(blocks), 'block')}"
    terminal.print_result(f"model: {header.digest.hex()}")
    terminal.print_result(f"{images} of {shape}, {header.levels:,} levels")
    terminal.print_result(f"{size}, {bits:.4f} bits/dim")
    for block in blocks:
        for name in compression.names_of(block):
            terminal.print_result(f"  {name if name.isprintable() else ascii(name)}")


def info_flags(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=flags.path, help="the compressed file")


def export(arguments: Namespace) -> None:
    """Writes the trained model to one file, which needs no workdir."""
    model = source.load(arguments.source)
    size = weights.write(arguments.out, model.pixel_rnn, model.params, model.class_names)
    count = sum(leaf.size for leaf in jax.tree.leaves(model.params))
    digest = compression.model_digest(model.pixel_rnn, model.params).hex()
    terminal.print_result(f"{arguments.out}: {size:,} bytes, {count:,} parameters, digest {digest}")


def export_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    flags.file_flag(parser, "model.safetensors")
