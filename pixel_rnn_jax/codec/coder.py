"""The range coder of a block of images, driven by the model's own distribution of each value.

For each value the compiled loop (`loop.py`) gives the logits of a group of images, which become
integer frequencies (`quantise.py`), and these code the values. The decoder gets the same
frequencies on any machine, since doubtful logits are stored.
"""

from typing import Any

import constriction
import jax
import numpy as np

from pixel_rnn_jax.codec.loop import each_value
from pixel_rnn_jax.codec.quantise import RoundingReader, RoundingWriter, frequencies
from pixel_rnn_jax.data import Batch, value_dtype
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.pixel_rnn import PixelRNN

PyTree = Any

GROUP, GROUP_VALUES = 64, 2**21
"""At most so many images, with at most so many values in all, are coded side by side; at least one.
The format has these numbers."""


class Coder:
    """Codes groups of images with one model on one device.

    Of a group, the classes of a model with classes come first, each with the same probability. Then
    come the values in generation order, those of all images side by side. Vectors and maps are not
    coded: the decoder is given them.

    Attributes:
        model: The model.
        params: Its parameters in float32.
        group: Images of a group; only the last one of a block may have fewer.

    Raises:
        UserError: The model gives values no probability, has too many levels, or has parameters
            that are not finite.
    """

    def __init__(self, model: PixelRNN, params: PyTree):
        model.discrete_likelihood()
        if model.levels > 2**16:
            raise UserError(f"the codec takes up to 65,536 levels, the model has {model.levels:,}")
        self.model = model
        self.params = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), params)
        if not all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(self.params)):
            raise UserError("the model has parameters that are not finite: train it again")
        self._device = jax.local_devices()[0]
        if self._device.platform not in ("cpu", "gpu"):  # A TPU has no float64 of its own.
            self._device = jax.local_devices(backend="cpu")[0]
        with jax.enable_x64(True):
            self._float64 = jax.device_put(jax.tree.map(np.float64, self.params), self._device)
        self.group = min(GROUP, max(1, GROUP_VALUES // model.dims))
        # Of 24 bits, as `PRECISION`. It rounds cumulative sums down and adds 1 to each frequency:
        # of integers that add up to 2**24 - K the frequencies are exactly one more.
        self.value_model = constriction.stream.model.Categorical(perfect=False)
        classes = model.config.num_classes
        self.class_model = constriction.stream.model.Uniform(classes) if classes else None

    def each_value(self, count: int, condition: np.ndarray | None, code: Any) -> None:
        """Calls `code` for each value of a group: see `loop.each_value`."""
        each_value(self.model, self._float64, code, count, condition, self._device)


class Encoder:
    """The code of one block, to which groups are added."""

    def __init__(self, coder: Coder):
        self._coder, self._rounding = coder, RoundingWriter()
        self._stream = constriction.stream.queue.RangeEncoder()

    @property
    def size(self) -> int:
        """Returns the bytes of the code so far."""
        return 4 * self._stream.num_words()

    def add(self, batch: Batch) -> None:
        """Encodes a group of images `[N, H, W, C]` with their condition."""
        images = batch.images.astype(np.int32)
        coder, stream = self._coder, self._stream
        if coder.class_model:
            stream.encode(batch.condition.astype(np.int32), coder.class_model)

        def code(marked: np.ndarray, place: tuple[int, int, int]) -> np.ndarray:
            values = np.ascontiguousarray(images[:, *place])
            stream.encode(values, coder.value_model, frequencies(self._rounding.round(marked)))
            return values

        coder.each_value(len(images), batch.condition, code)

    def finish(self) -> tuple[bytes, bytes]:
        """Returns the packed corrections and the code."""
        words = self._stream.get_compressed()
        return self._rounding.pack(), words.astype("<u4").tobytes()


def decode(
    coder: Coder, corrections: bytes, code: bytes, count: int, condition: np.ndarray | None
) -> Batch:
    """Returns the `count` images `[N, H, W, C]` of a block with their condition.

    `condition` are their vectors or maps; classes are in the code.

    Raises:
        ValueError, AssertionError: This is no code under these frequencies.
    """
    model, rounding = coder.model, RoundingReader(corrections)
    words = np.frombuffer(code, "<u4").astype(np.uint32)
    stream = constriction.stream.queue.RangeDecoder(words)
    images = np.empty((count, *model.image_shape), value_dtype(model.levels))
    classes = []

    for start in range(0, count, coder.group):
        group = images[start : start + coder.group]
        of_group = None if condition is None else condition[start : start + coder.group]
        if coder.class_model:
            classes.append(of_group := stream.decode(coder.class_model, len(group)))

        def code_of(
            marked: np.ndarray, place: tuple[int, int, int], group: np.ndarray = group
        ) -> np.ndarray:
            values = stream.decode(coder.value_model, frequencies(rounding.round(marked)))
            group[:, *place] = values
            return values

        coder.each_value(len(group), of_group, code_of)
    return Batch(images, np.concatenate(classes) if classes else condition)
