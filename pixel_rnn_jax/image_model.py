"""A model with its parameters, for use from Python: log-probabilities of images."""

import contextlib
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.typing import ArrayLike

from pixel_rnn_jax import evaluate, likelihoods
from pixel_rnn_jax.checkpoints import Checkpoints
from pixel_rnn_jax.config import ModelConfig, read_config, read_image_format
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

PyTree = Any

BATCH_BYTES = 256 * 2**20
"""Images are processed in batches whose largest array is about this size at most."""


def create(
    model_config: ModelConfig, image_shape: tuple[int, int, int], levels: int, seed: int = 0
) -> "ImageModel":
    """Creates a model with random parameters.

    Args:
        model_config: The architecture.
        image_shape: (H, W, C).
        levels: K, the number of values that a channel of a pixel can have, at least 2.
        seed: Of the random parameters.

    Raises:
        UserError: The shape or the number of levels is impossible, or features are too few for C.
    """
    shape = tuple(image_shape)
    if len(shape) != 3 or min(shape) < 1:
        raise UserError(f"image_shape must be (H, W, C) with sizes of at least 1, got {shape}")
    if levels < 2:
        raise UserError(f"levels must be at least 2, got {levels}")
    module = PixelRNN(model_config, shape, levels)
    params = jax.jit(lambda key: evaluate.init_parameters(module, key))(jax.random.key(seed))
    return ImageModel(module, params)


def load(workdir: epath.PathLike) -> "ImageModel":
    """Loads the trained model of a workdir: the average with the best validation.

    Raises:
        UserError: There is no trained model, or it is damaged.
    """
    config = read_config(workdir)
    image_format = read_image_format(workdir)
    module = PixelRNN(config.model, image_format.image_shape, image_format.levels)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
        _, params = evaluate.best_parameters(checkpoints, config, module, mesh)
    return ImageModel(module, params)


class ImageModel:
    """An exact-likelihood model of images of one shape and number of levels.

    Attributes:
        module: The Flax module; `module.apply({"params": params}, inputs)` gives logits.
        params: Its parameters.
    """

    def __init__(self, module: PixelRNN, params: PyTree):
        self.module = module
        self.params = params
        self._log_prob = jax.jit(
            lambda params, x: likelihoods.log_prob(evaluate.logits(module, params, x), x)
        )
        self._conditionals = jax.jit(
            lambda params, x: likelihoods.conditionals(evaluate.logits(module, params, x))
        )

    @property
    def config(self) -> ModelConfig:
        """The architecture."""
        return self.module.config

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C)."""
        return self.module.image_shape

    @property
    def levels(self) -> int:
        """K, the number of values that a channel of a pixel can have."""
        return self.module.levels

    def log_prob(self, images: ArrayLike, *, per_pixel: bool = False) -> np.ndarray:
        """Returns the exact log-probability of each image.

        Args:
            images: `[B, H, W, C]` integers from 0 to K - 1, of any batch size.
            per_pixel: Whether to return the term of each value instead of their sum.

        Returns:
            Nats, `[B]`; with `per_pixel`, `[B, H, W, C]`, each term given all earlier values.

        Raises:
            UserError: The shape, the type or a value does not fit the model.
        """
        terms = self._in_batches(self._log_prob, images)
        return terms if per_pixel else terms.sum(axis=(1, 2, 3))

    def conditionals(self, images: ArrayLike) -> np.ndarray:
        """Returns the distribution of each value given all earlier ones.

        Args:
            images: `[B, H, W, C]` integers from 0 to K - 1, of any batch size.

        Returns:
            Normalised log-probabilities in nats, `[B, H, W, C, K]`.

        Raises:
            UserError: The shape, the type or a value does not fit the model.
        """
        return self._in_batches(self._conditionals, images)

    def bits_per_dim(self, images: ArrayLike) -> np.ndarray:
        """Returns -log2 p(image) / (H * W * C) of each image, `[B]`; raises as `log_prob` does."""
        nats = -self.log_prob(images)
        return np.asarray(likelihoods.bits_per_dim(nats, math.prod(self.image_shape)))

    def _in_batches(
        self, function: Callable[[PyTree, jax.Array], jax.Array], images: ArrayLike
    ) -> np.ndarray:
        images = self._checked(images)
        size = self._batch_size()
        results = [
            np.asarray(function(self.params, jnp.asarray(_padded(images[i : i + size], size))))
            for i in range(0, max(len(images), 1), size)
        ]
        return np.concatenate(results)[: len(images)]

    def _batch_size(self) -> int:
        config = self.config
        channels = self.image_shape[-1]
        widest = max(8 * config.features, config.head_features, channels * self.levels)
        image_bytes = 4 * self.image_shape[0] * self.image_shape[1] * widest
        return max(1, min(64, BATCH_BYTES // image_bytes))

    def _checked(self, images: ArrayLike) -> np.ndarray:
        images = np.asarray(images)
        height, width, channels = self.image_shape
        if images.ndim != 4 or images.shape[1:] != self.image_shape:
            raise UserError(
                f"images must have shape [B, {height}, {width}, {channels}], got "
                f"{list(images.shape)}"
            )
        if images.dtype.kind not in "biu":
            raise UserError(
                f"images must be integers from 0 to {self.levels - 1} (unscaled), got "
                f"{images.dtype} values"
            )
        if images.size and (images.min() < 0 or images.max() >= self.levels):
            raise UserError(
                f"images must have values from 0 to {self.levels - 1}, got "
                f"{images.min()} to {images.max()}"
            )
        return images


def _padded(images: np.ndarray, size: int) -> np.ndarray:
    """Fills a batch up to a power of two, at most `size`, of one type: little is compiled."""
    full = min(size, 1 << max(len(images) - 1, 0).bit_length())
    return np.pad(images.astype(np.int32), [(0, full - len(images)), (0, 0), (0, 0), (0, 0)])
