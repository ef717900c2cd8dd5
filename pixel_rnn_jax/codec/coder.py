"""The range coder of a block of images, driven by the model's own distribution of each value.

For each digit of a value the compiled loop (`loop.py`) gives the logits of a group of images, which
become integer frequencies (`quantise.py`), and these code the digits. The decoder gets the same
frequencies on any machine, since doubtful logits are stored.

A group has some images of a block. Their classes come first, if the model has any, each with the
same probability. Then come their parts, by shape; at most `GROUP` parts of a shape are lanes, coded
side by side: their values follow in generation order, one of each lane at a time. Vectors and maps
are not coded: the decoder is given them.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from pixel_rnn_jax.codec.format import Sections
from pixel_rnn_jax.codec.loop import Loop
from pixel_rnn_jax.codec.portable import Decoder, Encoder
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.model.parts import Part, grids
from pixel_rnn_jax.model.pixel_rnn import PixelRNN

GROUP, GROUP_VALUES = 64, 2**21
"""At most so many images, with at most so many values in all, are a group, and likewise parts that
are coded side by side; at least one. The format has these numbers."""


def encode(loop: Loop, encoder: Encoder, group: Sequence[Batch], part: int) -> None:
    """Encodes a group of images `[H, W, C]`, each with its condition."""
    if classes := loop.model.config.condition.classes:
        encoder.encode_uniform(np.array([image.condition for image in group]), classes)
    for size, lanes in _lanes(loop.model, group, part):
        values = np.stack([place.of(group[place.picture].images) for place in lanes])
        for doubled, digits in loop.of_known(size, values, _conditions(group, lanes)):
            encoder.encode_on_grid(doubled, digits)


def decode(
    loop: Loop,
    sections: Sections,
    images: Sequence[Batch],
    part: int,
    advance: Callable[[int], object],
) -> list[Batch]:
    """Returns the images of a block, each with its condition.

    `images` has zeros `[H, W, C]` in place of their values, with vectors or maps if the model has
    any; classes are in the code. `advance` is called with numbers of values that are decoded; what
    it raises ends the work.
    """
    model, decoder = loop.model, Decoder(sections.corrections, sections.code)
    decoded = list[Batch]()

    def decode_lanes(size: tuple[int, int], count: int, condition: np.ndarray | None) -> np.ndarray:
        values = np.zeros((count, *size, model.image_shape[-1]), np.int32)

        def code(doubled: np.ndarray, place: tuple[int, int, int], unit: int) -> np.ndarray:
            digits = decoder.decode_on_grid(doubled)
            values[:, *place] += unit * digits
            advance(count * (unit == 1))
            return digits

        loop.each_value(size, count, condition, code)
        return values

    for group in groups(images):
        if classes := model.config.condition.classes:
            labels = decoder.decode_uniform(len(group), classes)
            group = [Batch(image.images, label) for image, label in zip(group, labels, strict=True)]
        for size, lanes in _lanes(model, group, part):
            values = decode_lanes(size, len(lanes), _conditions(group, lanes))
            for place, result in zip(lanes, values, strict=True):
                place.of(group[place.picture].images)[...] = result
        decoded += group
    return decoded


def groups(images: Iterable[Batch]) -> Iterator[list[Batch]]:
    """Divides images into groups of at most `GROUP` images and `GROUP_VALUES` values, or one."""
    group, values = list[Batch](), 0
    for image in images:
        size = image.images.size
        if group and (len(group) == GROUP or values + size > GROUP_VALUES):
            yield group
            group, values = [], 0
        group.append(image)
        values += size
    if group:
        yield group


def _lanes(
    model: PixelRNN, group: Sequence[Batch], side: int
) -> Iterator[tuple[tuple[int, int], list[Part]]]:
    sizes = [image.images.shape[:2] for image in group]
    one_digit = len(model.discrete_likelihood().digit_sizes) == 1
    heavy = max(32, model.levels) if one_digit else 32  # An encoder holds the logits of lanes.
    for size, places in grids(sizes, side, model.stride).items():
        most = min(
            GROUP, max(1, 32 * GROUP_VALUES // (math.prod(size) * model.image_shape[-1] * heavy))
        )
        for start in range(0, len(places), most):
            yield size, places[start : start + most]


def _conditions(group: Sequence[Batch], lanes: Sequence[Part]) -> np.ndarray | None:
    if group[0].condition is None:
        return None
    rows = [(place, np.asarray(group[place.picture].condition)) for place in lanes]
    return np.stack([place.of(row) if row.ndim > 1 else row for place, row in rows])
