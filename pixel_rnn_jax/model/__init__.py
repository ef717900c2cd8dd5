"""The distribution of images, as pure functions; of the package it imports errors alone."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from pixel_rnn_jax.model.likelihoods import bits_per_dim as bits_per_dim
    from pixel_rnn_jax.model.likelihoods import dequantize as dequantize
    from pixel_rnn_jax.model.scale import Scale as Scale
    from pixel_rnn_jax.model.scale import chain as chain
