"""The mean and the standard deviation of a set."""

import numpy as np

from pixel_rnn_jax.data.source import Source

STANDARDISATION_IMAGES = 50_000
"""Images that are measured at most: enough for two numbers of each channel."""


def standardisation(source: Source, batch_size: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns what makes values standard, as (x - offset) / scale, for each channel.

    Args:
        source: The images, of which the first `STANDARDISATION_IMAGES` are measured.
        batch_size: Images read at a time; it changes no result.

    Returns:
        offset: [C], the means.
        scale: [C], the standard deviations; 1 for a channel that has one value only.

    Raises:
        UserError: A value is not finite, or a file is damaged.
    """
    count = min(len(source), STANDARDISATION_IMAGES)
    channels = source.image_shape[-1]
    # Of each image, so that the result does not depend on the batches, and large values lose
    # nothing: the squares are of differences from a mean.
    means, variances = np.empty((2, count, channels))
    for start in range(0, count, batch_size):
        rows = slice(start, min(start + batch_size, count))
        images = source.batch(range(rows.start, rows.stop)).images
        values = images.reshape(len(images), -1, channels).astype(np.float64)
        means[rows], variances[rows] = values.mean(1), values.var(1)
    scale = np.sqrt(variances.mean(0) + means.var(0))
    return tuple(means.mean(0).tolist()), tuple(np.where(scale > 0, scale, 1.0).tolist())
