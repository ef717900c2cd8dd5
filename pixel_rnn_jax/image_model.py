"""A model with its parameters, for use from Python: likelihoods, samples, completions, codes."""

import contextlib
import math
import numbers
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.typing import ArrayLike

from pixel_rnn_jax import complete, compress, evaluate, likelihoods, sample
from pixel_rnn_jax.checkpoints import Checkpoints
from pixel_rnn_jax.complete import Completion
from pixel_rnn_jax.config import ModelConfig, read_config, read_image_format
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.images import check_images
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
    if not all(isinstance(size, numbers.Integral) for size in (*shape, levels)):
        raise UserError(f"image_shape and levels must be integers, got {shape} and {levels}")
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

    def sample(
        self, key: jax.Array, n: int, *, temperature: float = 1.0, return_log_prob: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Draws images.

        Image number i depends on the key and i alone, not on n or on the number of devices.

        Args:
            key: A key of `jax.random`, such as `jax.random.key(0)`.
            n: Number of images.
            temperature: What logits are divided by; 0 takes the most probable value of each pixel.
            return_log_prob: Whether to return the log-probability of each image as well.

        Returns:
            `[n, H, W, C]` integers of the smallest of uint8, uint16 and int32 that K fits in; with
            `return_log_prob`, also nats `[n]`.

        Raises:
            UserError: n or the temperature is negative.
        """
        images, log_probs = sample.sample(self.module, self.params, key, n, temperature=temperature)
        return (images, log_probs) if return_log_prob else images

    def complete(
        self, key: jax.Array, images: ArrayLike, known: ArrayLike, *, particles: int = 1
    ) -> Completion:
        """Draws the unknown values of partly known images.

        With one particle that is exact where every unknown value comes after the known ones in
        raster order: a known upper half, say. For any other mask use more, say 64: they are
        weighted by how well what they drew goes with the known values further on.

        Args:
            key: A key of `jax.random`.
            images: `[B, H, W, C]` integers from 0 to K - 1; anything of that range where unknown.
            known: Booleans: `[H, W]`, `[H, W, C]`, `[B, H, W, 1]` or `[B, H, W, C]`.
            particles: N.

        Returns:
            The completed images, in which known values are unchanged, and how good they are.

        Raises:
            UserError: A shape, type or value does not fit the model, or there are no particles.
        """
        images = self._checked(images)
        known = self._checked_known(known, len(images))
        return complete.complete(self.module, self.params, key, images, known, particles=particles)

    def compress(self, images: ArrayLike) -> bytes:
        """Compresses images without loss, to about -log2 p(image) bits each.

        Args:
            images: `[N, H, W, C]` integers from 0 to K - 1, any number of them.

        Raises:
            UserError: The shape, the type or a value does not fit the model.
        """
        return compress.compress(self.module, self.params, self._checked(images))

    def decompress(self, data: bytes, *, skip_damaged: bool = False) -> np.ndarray:
        """Returns the images `[N, H, W, C]` that `compress` was given.

        Args:
            data: What `compress` returned, from the same parameters on the same kind of machine.
            skip_damaged: Whether to leave out the images of damaged blocks instead of raising.

        Raises:
            UserError: The data are damaged, cut off, or of another model, machine or format.
        """
        return compress.decompress(self.module, self.params, data, skip_damaged=skip_damaged)

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
        check_images(images, self.image_shape, self.levels)
        return images

    def _checked_known(self, known: ArrayLike, count: int) -> np.ndarray:
        known = np.asarray(known)
        if known.dtype != bool:
            raise UserError(f"known must be booleans, got {known.dtype} values")
        shape = (count, *self.image_shape)
        if known.shape not in (shape[1:3], shape[1:], (*shape[:3], 1), shape):
            raise UserError(
                f"known must have shape {list(shape[1:3])}, {list(shape[1:])} or {list(shape)}, "
                f"got {list(known.shape)}"
            )
        return np.broadcast_to(known[..., None] if known.ndim == 2 else known, shape)


def _padded(images: np.ndarray, size: int) -> np.ndarray:
    """Fills a batch up to a power of two, at most `size`, of one type: little is compiled."""
    full = min(size, 1 << max(len(images) - 1, 0).bit_length())
    return np.pad(images.astype(np.int32), [(0, full - len(images)), (0, 0), (0, 0), (0, 0)])
