"""The commands `compress`, `decompress`, `info` and `export`."""

import math
from argparse import ArgumentParser, Namespace

import numpy as np
from etils import epy

from pixel_rnn_jax.cli import flags

with epy.lazy_imports():
    import jax

    from pixel_rnn_jax.codec import compression, format, weights
    from pixel_rnn_jax.data import pictures
    from pixel_rnn_jax.runs import source
    from pixel_rnn_jax.system import files, terminal


def compress(arguments: Namespace) -> None:
    """Compresses images without loss."""
    model, out = source.load(arguments.source), arguments.out
    pixel_rnn, split = model.pixel_rnn, flags.open_images(arguments, model)
    count = len(split)
    content = compression.compress(pixel_rnn, model.params, count, split.batch, split.file_names)
    with files.atomic_write(out) as file:
        file.write(content)
    size = f"{len(content):,} bytes for {terminal.plural(count, 'image')}"
    bits = 8 * len(content) / (count * pixel_rnn.num_values)
    terminal.print_result(f"{out}: {size}, {bits:.4f} bits/dim")


def compress_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    flags.images_flags(parser, required=True)
    help_ = "the compressed file (default: %(default)s)"
    parser.add_argument("--out", type=flags.output(), default="images.prnn", help=help_)


def decompress(arguments: Namespace) -> None:
    """Decompresses a file; an .npz file gets names, classes or conditions as well."""
    model = source.load(arguments.source)
    pictures.check_out(arguments.out, model.levels, model.image_shape[-1])
    with files.error_context(arguments.file):
        content, skip = arguments.file.read_bytes(), arguments.skip_damaged
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
    parser.add_argument("file", metavar="FILE", type=flags.path, help="the compressed file")
    flags.model_flags(parser)
    flags.out_flag(parser, "images.npz")
    help_ = "leave out the images of damaged blocks instead of stopping at the first"
    parser.add_argument("--skip_damaged", action="store_true", help=help_)


def info(arguments: Namespace) -> None:
    """Prints the content of a compressed file, without a model, and checks its checksums."""
    with files.error_context(arguments.file):
        content = arguments.file.read_bytes()
        header, blocks, _ = format.read_blocks(content)
    count = sum(block.length for block in blocks)
    shape = "x".join(map(str, header.image_shape))
    bits = 8 * len(content) / max(count * math.prod(header.image_shape), 1)
    terminal.print_result(f"model: {header.digest.hex()}")
    images = terminal.plural(count, "image")
    terminal.print_result(f"{images} of {shape}, {header.levels:,} levels")
    size = f"{len(content):,} bytes in {terminal.plural(len(blocks), 'block')}"
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
    help_ = "the file, in the safetensors format (default: %(default)s)"
    parser.add_argument("--out", type=flags.output(), default="model.safetensors", help=help_)
