"""Entropy coding of values under anybody's logits, which every machine decodes; without JAX.

A model gives the logits of each value, in any framework: the encoder takes them with the values, as
many at a time as the model gives, and the decoder asks for the same logits again, in the same
order. The logits of two machines, or of two programs for one model, differ in their last digits:
see `quantise.py` for what makes the code the same.
"""

import constriction
import numpy as np
from numpy.typing import ArrayLike

from pixel_rnn_jax.codec.quantise import RoundingReader, RoundingWriter, frequencies, on_grid
from pixel_rnn_jax.system.errors import UserError

MOST_LEVELS = 2**16

# constriction adds 1 to each weight, so weights that sum to 2**24 - n become exact frequencies.
_VALUES = constriction.stream.model.Categorical(perfect=False)


class Encoder:
    """Encodes values, each under the distribution that its logits give, at -log2 p bits each.

    >>> from pixel_rnn_jax.codec import Decoder, Encoder
    >>> logits, values = np.array([[0.5, 2, -1], [1, 0, 0]]), np.array([1, 2])
    >>> encoder = Encoder()
    >>> encoder.encode(logits, values, margin=1e-10)
    >>> decoder = Decoder(*encoder.finish())
    >>> decoder.decode(logits * (1 + 1e-12))
    array([1, 2], dtype=int32)
    """

    def __init__(self) -> None:
        self._rounding = RoundingWriter()
        self._stream = constriction.stream.queue.RangeEncoder()

    @property
    def size(self) -> int:
        """The number of bytes of the code so far."""
        return 4 * self._stream.num_words()

    def encode(self, logits: ArrayLike, values: ArrayLike, margin: float) -> None:
        """Encodes values `[N]`, integers from 0 to K - 1, given their logits `[N, K]`.

        K is at most 65,536, and may differ from call to call. Logits `[N, 1]` are the logits of
        the value 1 against 0. A value whose logit is -inf can be coded too, in up to 24 bits.

        The margin is the largest difference between these and the decoder's logits, in nats for
        each ``1 + |logit|``, at most 0.001: docs/portable_coding.md says how to choose it.

        Raises:
            UserError: The margin, shapes or values do not fit, or a logit is not a number.
        """
        if not 0 <= margin <= 1e-3:
            raise UserError(f"margin must be from 0 to 0.001, got {margin}")
        logits, values = _checked(logits), np.asarray(values)
        levels = max(2, logits.shape[1])
        fits = values.shape == logits.shape[:1] and values.dtype.kind in "iu"
        if not fits or (values.size and not 0 <= values.min() <= values.max() < levels):
            raise UserError(f"values must be {len(logits)} integers from 0 to {levels - 1}")
        self.encode_on_grid(on_grid(logits, margin), values)

    def encode_on_grid(self, doubled: np.ndarray, values: np.ndarray) -> None:
        """Encodes values, given what `on_grid` makes of their logits."""
        weights = frequencies(self._rounding.round(doubled))
        self._stream.encode(np.ascontiguousarray(values, np.int32), _VALUES, weights)

    def encode_uniform(self, values: np.ndarray, levels: int) -> None:
        """Encodes values that all have the same probability."""
        self._stream.encode(values.astype(np.int32), constriction.stream.model.Uniform(levels))

    def finish(self) -> tuple[bytes, bytes]:
        """Returns the corrections, which say how doubtful logits were rounded, and the code."""
        words = self._stream.get_compressed()
        return bytes(self._rounding.packed), words.astype("<u4").tobytes()


class Decoder:
    """Decodes what `Encoder.finish` returned; see there for an example."""

    def __init__(self, corrections: bytes, code: bytes):
        self._rounding = RoundingReader(corrections)
        words = np.frombuffer(code, "<u4").astype(np.uint32)
        self._stream = constriction.stream.queue.RangeDecoder(words)

    def decode(self, logits: ArrayLike) -> np.ndarray:
        """Returns the next values, `[N]`, given their logits `[N, K]`; raises as `encode`."""
        return self.decode_on_grid(on_grid(_checked(logits), 0))

    def decode_on_grid(self, doubled: np.ndarray) -> np.ndarray:
        """Returns the next values, given what `on_grid` makes of their logits."""
        return np.asarray(self._stream.decode(_VALUES, frequencies(self._rounding.round(doubled))))

    def decode_uniform(self, count: int, levels: int) -> np.ndarray:
        """Returns the next values, which all have the same probability."""
        return np.asarray(self._stream.decode(constriction.stream.model.Uniform(levels), count))


def _checked(logits: ArrayLike) -> np.ndarray:
    logits = np.asarray(logits, np.float64)
    if logits.ndim != 2 or not 1 <= logits.shape[1] <= MOST_LEVELS or np.isnan(logits).any():
        rule = "be numbers [N, K] with K of 1 to 65,536"
        raise UserError(f"logits must {rule}, got shape {logits.shape}")
    return logits
