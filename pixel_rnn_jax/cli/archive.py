"""The verbs that read compressed files: `decompress`, `extract`, `info` and `verify`."""

import contextlib
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import jax
import numpy as np

from pixel_rnn_jax import image_model, pictures
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.codec import archive, framing
from pixel_rnn_jax.codec.archive import Damage, Part
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.terminal import counted, show, show_json


@contextlib.contextmanager
def opened(values: Flags, verb: str) -> Iterator[BinaryIO]:
    """Opens the file of the verb for reading; - is the standard input."""
    if not values.file:
        raise UserError(f"{verb} needs a file, for example {verb} images.prnn")
    if values.file == "-":
        yield sys.stdin.buffer
        return
    try:
        file = Path(values.file).open("rb")  # noqa: SIM115
    except OSError as error:
        raise UserError(f"{values.file} cannot be read: {error.strerror}") from error
    with file:
        yield file


def decompress(values: Flags) -> None:
    """Decompresses a file; an .npz file gets names, classes or conditions as well."""
    pictures.check_ending(values.out)
    with opened(values, "decompress") as file:
        model = image_model.load(values.workdir)
        pictures.check_out(values.out, model.levels, model.image_shape[-1])
        part, lost = archive.read_all(
            model.pixel_rnn, model.params, file, skip_damaged=values.skip_damaged
        )
    if lost:
        show(lost)
    _write(part, model, values.out)


def extract(values: Flags) -> None:
    """Decompresses the images of a file that have the given names."""
    wanted = dict.fromkeys(values.names or [])
    if not wanted:
        raise UserError("extract needs names of images, for example extract images.prnn cat.png")
    pictures.check_ending(values.out)
    found, damaged = [], False
    with opened(values, "extract") as file:
        if file.seekable():  # Decoding takes longer than reading twice.
            start = file.tell()
            if (names := _all_names(file)) is not None:
                if not names:
                    raise UserError(f"no image of {values.file} has a name: decompress it")
                _check_names(wanted, names, values.file)
            file.seek(start)
        model = image_model.load(values.workdir)
        pictures.check_out(values.out, model.levels, model.image_shape[-1])
        for part in archive.read(model.pixel_rnn, model.params, file, wanted):
            if isinstance(part, Damage):
                show(str(part))
                damaged = True
                continue
            rows = np.flatnonzero([name in wanted for name in part.names])
            batch = jax.tree.map(lambda array, rows=rows: array[rows], part.batch)
            found.append(Part(batch, tuple(part.names[row] for row in rows), part.mode))
    names = [name for part in found for name in part.names]
    _check_names(wanted, names, values.file, damaged=damaged)
    batch = jax.tree.map(lambda *arrays: np.concatenate(arrays), *(part.batch for part in found))
    _write(Part(batch, tuple(names), found[0].mode), model, values.out)


def _all_names(file: BinaryIO) -> list[str] | None:
    """Returns the names of all images of a file, or None if it is damaged."""
    names: list[str] = []
    for block in framing.read(file)[1]:
        if isinstance(block, Damage):
            return None
        names += archive.unpack_names(block)[0]
    return names


def _check_names(
    wanted: Iterable[str], names: list[str], file: str, *, damaged: bool = False
) -> None:
    """Checks that the images that are wanted are among those of a file that can be read."""
    there = set(names)
    if missing := [name for name in wanted if name not in there]:
        others = f", nor {len(missing) - 1} others" if len(missing) > 1 else ""
        why = " that can be read: the file is damaged" if damaged else ": see `info` for the names"
        raise UserError(f"{file} has no image {missing[0]!r}{others}{why}")


def info(values: Flags) -> None:
    """Prints what a compressed file holds; no model is needed."""
    with opened(values, "info") as file:
        header, blocks = framing.read(file)
        packed, count, sizes = header.pack(), 0, []
        names: list[str] = []
        damage = []
        for block in blocks:
            if isinstance(block, Damage):
                damage.append(block)
                continue
            count += block.length
            sizes.append(len(block.pack(packed)))
            names += archive.unpack_names(block)[0]
    height, width, channels = header.image_shape
    size = len(packed) + sum(sizes) + len(framing.pack_end(packed, count, b""))
    form = f"fast, for {header.machine}" if header.machine else "portable"
    show(f"{values.file}: pixel_rnn_jax, format {framing.VERSION}, {form}")
    show(f"model: {header.model.hex()}")
    show(f"images: {count:,} of {height}x{width}x{channels}, {header.levels:,} levels")
    pixels = count * height * width
    bits = 8 * size / pixels if pixels else None
    each = "" if bits is None else f", {bits:.4f} bits a pixel"
    whole = " that can be read" if damage else ""
    show(f"size: {size:,} bytes in {counted(len(sizes), 'block')}{whole}{each}")
    for name in names:
        show(_line(name))
    show_json(
        file=values.file,
        format=framing.VERSION,
        machine=header.machine or None,
        model=header.model.hex(),
        images=count,
        image_shape=header.image_shape,
        levels=header.levels,
        bytes=size,
        blocks=len(sizes),
        bits_per_pixel=bits,
        names=names,
        damage=_as_json(damage),
    )
    _refuse(damage)


def verify(values: Flags) -> None:
    """Checks a compressed file: all checksums, and with --workdir what it decodes to."""
    damage: list[Damage] = []
    count = 0
    with opened(values, "verify") as file:
        if values.workdir:
            model = image_model.load(values.workdir)
            parts: Iterator[Any] = archive.read(model.pixel_rnn, model.params, file)
            what = "decode to what was compressed"
        else:
            _, parts = framing.read(file)
            what = "are as they were written (give --workdir to decode them as well)"
        for part in parts:
            if isinstance(part, Damage):
                damage.append(part)
            else:
                count += len(part.batch.images) if isinstance(part, Part) else part.length
    if not damage:
        show(f"{values.file}: all {count:,} images {what}")
    found = {"images": count, "decoded": bool(values.workdir), "damage": _as_json(damage)}
    show_json(file=values.file, **found)
    _refuse(damage)


def _refuse(damage: list[Damage]) -> None:
    """Says which images are lost, and ends with an error if any are."""
    for lost in damage:
        show(str(lost))
        for name in _lost_names(lost):
            show(_line(name))
    if damage:
        raise UserError("the file is damaged: get an intact copy, or decompress --skip_damaged")


def _lost_names(lost: Damage) -> list[str]:
    """Returns the names of images that cannot be read, as far as they can."""
    names, _ = archive.unpack_names(lost)
    return list(names[: None if lost.stop is None else lost.stop - lost.start])


def _as_json(damage: list[Damage]) -> list[dict[str, Any]]:
    """Returns what is lost for JSON: image numbers from `start` on and before `stop`, from 0."""
    return [{**lost._asdict(), "names": _lost_names(lost)} for lost in damage]


def _line(name: str) -> str:
    """Returns a line with a name, without characters that no terminal should be sent."""
    return "  " + "".join(c if _is_shown(c) else ascii(c)[1:-1] for c in name)


def _is_shown(character: str) -> bool:
    """Whether a terminal may get it: all but what steers it, ends a line or has no meaning."""
    category = unicodedata.category(character)
    return category not in ("Zl", "Zp") and (category[0] != "C" or character in "\u200c\u200d")


def _write(part: Part, model: ImageModel, out: str) -> None:
    """Writes decompressed images with what belongs to them."""
    (images, condition), arrays = part.batch, {}
    if condition is not None:
        named = len(model.class_names) == model.config.num_classes > 0  # There may be fewer names.
        name = "labels" if model.config.num_classes else "condition"
        arrays[name] = np.array(model.class_names)[condition] if named else condition
    if part.names:
        arrays["names"] = np.array(part.names)
    pictures.write_images(
        images, model.levels, out, arrays=arrays, names=part.names, mode=part.mode
    )
    show(f"{out}: {counted(len(images), 'image')}")
