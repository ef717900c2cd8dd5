"""A model with its parameters, for use from Python: likelihoods, samples, completions, codec."""

import functools
import io
import math
import numbers
import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from etils import epath
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax.codec import container
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.data import Batch, check_images, check_labels
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation import complete, sample
from pixel_rnn_jax.generation.complete import Completion
from pixel_rnn_jax.models import PixelRNN, bits_per_dim
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices

PyTree = Any

BATCH_BYTES = 256 * 2**20
"""About the largest array of a batch, which limits the number of its images."""


def create(
    model_config: ModelConfig, image_shape: tuple[int, int, int], levels: int, seed: int = 0
) -> "ImageModel":
    """Creates a model with random parameters.

    Args:
        model_config: The architecture.
        image_shape: (H, W, C).
        levels: K, the number of values that a channel of a pixel can have, at least 2.
        seed: Seed of the random parameters.

    Raises:
        UserError: As `PixelRNN`.
    """
    model = PixelRNN(model_config, image_shape, levels)
    return ImageModel(model, jax.jit(model.init)(jax.random.key(seed)))


def load(workdir: epath.PathLike) -> "ImageModel":
    """Loads the trained model of a workdir: the parameters with the best validation.

    Raises:
        UserError: There is no trained model, or it is damaged.
    """
    run = open_run(workdir, devices.local_mesh(1))
    return ImageModel(run.model, run.params)


class LostImages(UserWarning):
    """Says how many images of a compressed file are lost, since their blocks are damaged."""


class ImageModel:
    """An exact-likelihood model of images of one shape and number of levels.

    A model with classes needs `labels`, `[B]` integers, in every method; other models take none. A
    model with `output="continuous"` is a density: its images are floats, dequantised values from 0
    to K. B may be any number of images.

    Attributes:
        pixel_rnn: The `PixelRNN`, whose methods are pure functions of parameters and images.
        params: Its parameters.
        config: The architecture, a `ModelConfig`.
        image_shape: (H, W, C).
        levels: K, the number of values that a channel of a pixel can have.
    """

    def __init__(self, model: PixelRNN, params: PyTree):
        self.pixel_rnn, self.params = model, params
        self.config, self.image_shape, self.levels = model.config, model.image_shape, model.levels
        self._mesh = devices.local_mesh(jax.local_device_count())
        self._log_prob = self._compiled(functools.partial(model.log_prob, per_pixel=True))
        self._conditionals = self._compiled(model.conditionals)

    def __repr__(self) -> str:
        config, shape = self.config, "x".join(map(str, self.image_shape))
        names = dict.fromkeys(config.scale_architectures or (config.architecture,))
        scales = f", scales {config.scales}" if config.scales else ""
        classes = f", {config.classes} classes" if config.classes else ""
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return (
            f"ImageModel({' and '.join(names)}, {config.layers} layers, h={config.features}, "
            f"images {shape} of {self.levels} levels{scales}{classes}, {size:,} parameters)"
        )

    def log_prob(
        self, images: ArrayLike, labels: ArrayLike | None = None, *, per_pixel: bool = False
    ) -> np.ndarray:
        """Returns the exact log-probability of each image, or its log-density.

        Args:
            images: `[B, H, W, C]` integers from 0 to K - 1. A density takes floats from 0 to K
                (see `dequantize`), and is per unit of a level.
            labels: `[B]` classes.
            per_pixel: Whether to return the term of each value instead of their sum.

        Returns:
            Nats, `[B]`; with `per_pixel`, `[B, H, W, C]`, each term given all earlier values. In
            the plain multi-scale form (`exact=False`) this is the probability that the image is
            drawn *and* that no scale contradicts the one before.

        Raises:
            UserError: The shape, the type or a value does not fit the model.
        """
        terms = self._in_batches(self._log_prob, images, labels)
        return terms if per_pixel else terms.sum(axis=(1, 2, 3))

    def conditionals(self, images: ArrayLike, labels: ArrayLike | None = None) -> np.ndarray:
        """Returns the distribution of each value given all earlier ones, in generation order.

        Returns:
            Normalised log-probabilities in nats, `[B, H, W, C, K]`.

        Raises:
            UserError: As `log_prob`; or the model is a density or in the plain multi-scale form,
                and has no such distributions.
        """
        self.pixel_rnn.check_conditionals()
        return self._in_batches(self._conditionals, images, labels)

    def bits_per_dim(self, images: ArrayLike, labels: ArrayLike | None = None) -> np.ndarray:
        """Returns -log2 p(image) / (H * W * C) of each image, `[B]`; raises as `log_prob`."""
        nats = -self.log_prob(images, labels)
        return np.asarray(bits_per_dim(nats, math.prod(self.image_shape)))

    def sample(
        self,
        key: Array,
        n: int,
        labels: ArrayLike | None = None,
        *,
        temperature: float = 1.0,
        return_log_prob: bool = False,
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray]:
        """Draws images.

        Image i depends only on the key, i and its label, not on n or the number of devices.

        Args:
            key: A key of `jax.random`, such as `jax.random.key(0)`.
            n: Number of images.
            labels: `[n]` classes.
            temperature: Logits are divided by it; 0 takes the most probable value of each pixel.
            return_log_prob: Whether to return the log-probability of each image as well.

        Returns:
            `[n, H, W, C]` integers of the smallest of uint8, uint16 and int32 that K fits in
            (floats from a density); with `return_log_prob`, also nats `[n]`.

        Raises:
            UserError: n or the temperature is negative, the key is not one of `jax.random`, or the
                labels do not fit.
        """
        _check_key(key)
        if not isinstance(n, numbers.Integral):
            raise UserError(f"n must be an integer, got {n!r}")
        labels = check_labels(labels, n, self.config.classes)
        images, log_probs = sample.sample(
            self.pixel_rnn, self.params, key, n, labels=labels, temperature=temperature
        )
        if not return_log_prob:
            return images
        return images, self.log_prob(images, labels) if self.config.plain else log_probs

    def complete(
        self,
        key: Array,
        images: ArrayLike,
        known: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        particles: int = 1,
    ) -> Completion:
        """Draws the unknown values of partly known images.

        With one particle the draw is exact if every unknown value comes after all known ones in
        generation order, as with the upper half known and one scale. For any other mask use more,
        say 64: they are weighted by how well they fit the known values that come later.

        Args:
            key: A key of `jax.random`. Image i depends only on it, i and the other arguments.
            images: `[B, H, W, C]` integers from 0 to K - 1; any of them where unknown.
            known: Booleans: `[H, W]`, `[H, W, C]`, `[B, H, W, 1]` or `[B, H, W, C]`.
            labels: `[B]` classes.
            particles: Number of completions that are drawn for each image, of which one is kept.

        Returns:
            The completed images, in which known values are unchanged, and how good they are.

        Raises:
            UserError: As `log_prob`; or the key is not one of `jax.random`, the mask does not fit,
                there are no particles, or the model is a density.
        """
        _check_key(key)
        batch = self._checked(images, labels)
        known = self._checked_known(known, len(batch.images))
        return complete.complete(
            self.pixel_rnn, self.params, key, batch, known, particles=particles
        )

    def compress(self, images: ArrayLike, labels: ArrayLike | None = None) -> bytes:
        """Compresses images `[N, H, W, C]` without loss, to about -log2 p(image) bits each.

        The classes of a model with classes are stored as well.

        Raises:
            UserError: As `conditionals`.
        """
        batch, file = self._checked(images, labels), io.BytesIO()

        def batch_of(indices: np.ndarray) -> Batch:
            return jax.tree.map(lambda array: array[indices], batch)

        container.write(self.pixel_rnn, self.params, batch_of, len(batch.images), file)
        return file.getvalue()

    def decompress(
        self, data: bytes, *, skip_damaged: bool = False, return_labels: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray | None]:
        """Returns the images `[N, H, W, C]` that `compress` was given.

        Args:
            data: What `compress` returned, from the same parameters on the same kind of machine.
            skip_damaged: Whether to leave out the images of damaged blocks instead of raising. The
                warning `LostImages`, a `UserWarning`, says how many they are.
            return_labels: Whether to return their classes `[N]` as well.

        Raises:
            UserError: The data are damaged, cut off, or of another model, machine or format.
        """
        found, lost = container.read(self.pixel_rnn, self.params, data, skip_damaged=skip_damaged)
        if lost:
            warnings.warn(lost, LostImages, stacklevel=2)
        return (found.images, found.labels) if return_labels else found.images

    def _in_batches(
        self,
        function: Callable[[PyTree, Batch], Array],
        images: ArrayLike,
        labels: ArrayLike | None,
    ) -> np.ndarray:
        batch = self._checked(images, labels)
        count, rows, number = len(batch.images), self._batch_size(), self._mesh.size
        params, results = jax.device_put(self.params, devices.replicated(self._mesh)), []
        for i in range(0, max(count, 1), rows * number):
            part = jax.tree.map(
                lambda array, i=i: _padded(array[i : i + rows * number], rows, number), batch
            )
            results.append(np.asarray(function(params, part)))
        return np.concatenate(results)[:count]

    def _compiled(self, function: Callable[..., Array]) -> Callable[[PyTree, Batch], Array]:
        return devices.map_batch(
            lambda params, batch: function(params, *batch), self._mesh, self.pixel_rnn.parts
        )

    def _batch_size(self) -> int:
        config, (height, width, channels) = self.config, self.image_shape
        widest = max(8 * config.features, config.head_features, channels * self.levels)
        return max(1, min(64, BATCH_BYTES // (4 * height * width * widest)))

    def _checked(self, images: ArrayLike, labels: ArrayLike | None) -> Batch:
        images = np.asarray(images)
        check_images(
            images, self.image_shape, self.levels, discrete=self.pixel_rnn.likelihood.discrete
        )
        return Batch(images, check_labels(labels, len(images), self.config.classes))

    def _checked_known(self, known: ArrayLike, count: int) -> np.ndarray:
        known = np.asarray(known)
        if known.dtype != bool:
            raise UserError(f"known must be booleans, got {known.dtype} values")
        shape = (count, *self.image_shape)
        shapes = shape[1:3], shape[1:], (*shape[:3], 1), shape
        if known.shape not in shapes:
            choices = ", ".join(dict.fromkeys(str(list(choice)) for choice in shapes))
            raise UserError(f"known must have one of the shapes {choices}, got {list(known.shape)}")
        return np.broadcast_to(known[..., None] if known.ndim == 2 else known, shape)


def _check_key(key: Array) -> None:
    if not isinstance(key, Array):
        raise UserError(f"key must be one of jax.random, such as jax.random.key(0), got {key!r}")


def _padded(array: np.ndarray, size: int, devices: int) -> np.ndarray:
    """Fills a batch, of one type, so that each device has a power of two rows, at most `size`.

    So little is compiled.
    """
    full = devices * min(size, 1 << (max(len(array) - 1, 0) // devices).bit_length())
    return sample.padded(array.astype(np.float32 if array.dtype.kind == "f" else np.int32), full)
