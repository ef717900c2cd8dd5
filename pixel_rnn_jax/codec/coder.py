"""The range coder of a block of images, driven by the model's own distribution of each value.

For each digit of a value the compiled loop (`loop.py`) gives the logits of a group of images, which
become integer frequencies (`quantise.py`), and these code the digits. The decoder gets the same
frequencies on any machine, since doubtful logits are stored.

In a group the classes come first, if the model has any, each with the same probability. Then come
the values in generation order, one of each image at a time. Vectors and maps are not
coded: the decoder is given them.
"""

from typing import Any

import constriction
import numpy as np

from pixel_rnn_jax.codec.format import Sections
from pixel_rnn_jax.codec.loop import Loop
from pixel_rnn_jax.codec.quantise import RoundingReader, RoundingWriter, frequencies
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.model.likelihoods import value_dtype

# constriction adds 1 to each weight, so weights that sum to 2**24 - n become exact frequencies.
_DIGIT = constriction.stream.model.Categorical(perfect=False)


class Encoder:
    """The code of one block, to which groups are added."""

    def __init__(self, loop: Loop):
        self._loop, self._rounding = loop, RoundingWriter()
        self._stream = constriction.stream.queue.RangeEncoder()

    @property
    def size(self) -> int:
        """Returns the bytes of the code so far."""
        return 4 * self._stream.num_words()

    def add(self, batch: Batch) -> None:
        """Encodes a group of images `[N, H, W, C]` with their condition."""
        images = batch.images.astype(np.int32)
        if classes := self._loop.model.config.condition.classes:
            uniform = constriction.stream.model.Uniform(classes)
            self._stream.encode(batch.condition.astype(np.int32), uniform)

        likelihood = self._loop.model.discrete_likelihood()
        base = 16 if len(likelihood.digit_sizes) > 1 else likelihood.levels
        digits_of = {size: images // size % base for size in likelihood.digit_sizes}

        def code(doubled: np.ndarray, place: tuple[int, int, int], size: int) -> np.ndarray:
            digits = np.ascontiguousarray(digits_of[size][:, *place])
            self._stream.encode(digits, _DIGIT, frequencies(self._rounding.round(doubled)))
            return digits

        self._loop.each_value(len(images), batch.condition, code)

    def finish(self) -> tuple[bytes, bytes]:
        """Returns the packed corrections and the code."""
        words = self._stream.get_compressed()
        return bytes(self._rounding.packed), words.astype("<u4").tobytes()


def decode(loop: Loop, sections: Sections, count: int, condition: np.ndarray | None) -> Batch:
    """Returns the `count` images `[N, H, W, C]` of a block with their condition.

    `condition` are their vectors or maps; classes are in the code.
    """
    model, rounding = loop.model, RoundingReader(sections.corrections)
    words = np.frombuffer(sections.code, "<u4").astype(np.uint32)
    stream = constriction.stream.queue.RangeDecoder(words)
    images = np.zeros((count, *model.image_shape), value_dtype(model.levels))
    classes = model.config.condition.classes
    conditions: Any = np.empty(count, np.int32) if classes else condition

    def code_of(doubled: np.ndarray, place: tuple[int, int, int], size: int) -> np.ndarray:
        digits = stream.decode(_DIGIT, frequencies(rounding.round(doubled)))
        images[rows, *place] += (size * digits).astype(images.dtype)
        return digits

    for start in range(0, count, loop.group):
        rows = slice(start, start + loop.group)
        size = len(images[rows])
        if classes:
            conditions[rows] = stream.decode(constriction.stream.model.Uniform(classes), size)
        loop.each_value(size, None if conditions is None else conditions[rows], code_of)
    return Batch(images, conditions)
