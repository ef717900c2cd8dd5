"""Lossless compression by a range coder that the model drives, and exported weights.

Encoder and decoder of values under anybody's logits can be imported without JAX.
"""

from pixel_rnn_jax.codec.portable import Decoder, Encoder

__all__ = ["Decoder", "Encoder"]
