"""A model with its parameters, for use from Python: likelihoods, samples, completions, codec."""

import io
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array
from jax.typing import ArrayLike

from pixel_rnn_jax import hub, shipped
from pixel_rnn_jax.batches import in_batches
from pixel_rnn_jax.codec import archive
from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.data import Batch, Images
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.generation.complete import Completion
from pixel_rnn_jax.models import bits_per_dim, checks
from pixel_rnn_jax.paths import expanded
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs import export
from pixel_rnn_jax.runs.workdir import Run, open_run
from pixel_rnn_jax.runtime import devices

PyTree = Any

BATCH_BYTES = 256 * 2**20
"""About the largest array of a batch, which limits the number of its images."""
CPU_LANES = 8
ACCELERATOR_LANES = 128
"""Images that a device generates at a time; a smaller batch is padded.

With another number of lanes the compiled program may differ in the last bits, and so, rarely, a
value. A fixed number keeps an image independent of how many are drawn with it.
"""


def create(
    model_config: ModelConfig, image_shape: tuple[int, int, int], levels: int = 0, seed: int = 0
) -> "ImageModel":
    """Creates a model with random parameters.

    Args:
        model_config: The architecture.
        image_shape: (H, W, C).
        levels: K, the number of values that a channel of a pixel can have, from 2 to 2**24; 0 for
            real values.
        seed: Seed of the random parameters.

    Raises:
        UserError: As `PixelRNN`; or the seed is no integer from 0 to 2**32 - 1.
    """
    model = PixelRNN(model_config, image_shape, levels)
    if not checks.is_integer(seed) or not 0 <= seed < 2**32:
        raise UserError(f"seed must be an integer from 0 to 2**32 - 1, got {seed!r}")
    return ImageModel(model, jax.jit(model.init)(jax.random.key(seed)))


def load(path: epath.PathLike) -> "ImageModel":
    """Loads a trained model.

    Args:
        path: The name of a model that comes with the package, such as "digits"; a workdir, of which
            the parameters with the best validation are taken; or a file that `ImageModel.save` or
            the command `export` wrote. Of a program with several processes, all load a workdir
            together.

    Raises:
        UserError: There is no trained model, or it is damaged.
    """
    path = expanded(shipped.place(path))
    if export.is_exported(path):
        return ImageModel(*export.read(path))
    run = open_run(path, devices.local_mesh(1))
    return of_run(run)


def of_run(run: Run) -> "ImageModel":
    """Returns the model of a run that is open, with its parameters and names of classes."""
    return ImageModel(run.model, run.params, run.image_format.class_names)


def from_pretrained(
    repo_id: str, *, revision: str | None = None, token: str | None = None
) -> "ImageModel":
    """Loads a model that `ImageModel.push_to_hub` has put on the Hugging Face Hub.

    Args:
        repo_id: The repository, "OWNER/NAME".
        revision: A branch, tag or commit of it; by default the newest commit.
        token: An access token; by default the one of `hf auth login`.

    Raises:
        UserError: The repository or the model in it cannot be read, or huggingface_hub is not
            installed.
    """
    return load(hub.fetch(repo_id, revision=revision, token=token))


class LostImages(UserWarning):
    """Says which images of a compressed file are lost, since their blocks are damaged."""


class ImageModel:
    """An exact-likelihood model of images of one shape: a `PixelRNN` with its parameters.

    Its methods do what those of `PixelRNN` do, for any number of images: they are computed some at
    a time, on all devices of the process. Arrays of NumPy are taken as well, and classes by their
    names where the model has any. `log_prob`, `conditionals` and `bits_per_dim` may be transformed
    by JAX: given tracers, they are the functions of the `PixelRNN`.

    `condition` is `[B]` integers or names for a model with `classes`, `[B, D]` floats with
    `condition_vector`, `[B, H, W, D]` floats with `condition_map`, and None for any other.

    Attributes:
        pixel_rnn: The `PixelRNN`, whose methods are pure functions of parameters and images.
        params: Its parameters.
        class_names: The names of its classes in order; empty if they have none.
        config: The architecture, a `ModelConfig`.
        image_shape: (H, W, C).
        levels: K, the number of values that a channel of a pixel can have; 0 for real values.
    """

    def __init__(self, model: PixelRNN, params: PyTree, class_names: Sequence[str] = ()):
        self.pixel_rnn, self.params, self.class_names = model, params, tuple(class_names)
        self.config, self.image_shape, self.levels = model.config, model.image_shape, model.levels

    def __repr__(self) -> str:
        config, shape = self.config, "x".join(map(str, self.image_shape))
        names = dict.fromkeys(config.scale_architectures or (config.architecture,))
        values = f"of {self.levels} levels" if self.levels else "of real values"
        scales = f", scales {config.scales}" if config.scales else ""
        _, kind = checks.condition_form(config, self.image_shape)
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return (
            f"ImageModel({' and '.join(names)}, {config.layers} layers, h={config.features}, "
            f"images {shape} {values}{scales}{kind and ', given ' + kind}, {size:,} parameters)"
        )

    def save(self, path: epath.PathLike) -> None:
        """Writes the model to one file, which `load` reads; "model.safetensors" is a usual name.

        It holds the architecture, the image format and the parameters, in the safetensors format,
        which other frameworks read as well.

        Raises:
            UserError: The parameters do not fit the architecture or are not finite; or the file
                cannot be written.
        """
        export.write(expanded(path), self.pixel_rnn, self.params, self.class_names)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model to a repository on the Hugging Face Hub, which `from_pretrained` reads.

        It also writes a model card, README.md, unless the repository has one.

        Args:
            repo_id: The repository, "OWNER/NAME", which is created if there is none.
            private: Whether a new repository is seen by you alone.
            token: An access token; by default the one of `hf auth login`.

        Returns:
            The address of the commit.

        Raises:
            UserError: As `save`; or the Hub refuses, or huggingface_hub is not installed.
        """
        content = export.to_bytes(self.pixel_rnn, self.params, self.class_names)
        facts = repr(self), self.image_shape, self.levels, self.class_names
        return hub.push(repo_id, content, hub.Facts(*facts), private=private, token=token)

    def log_prob(
        self, images: ArrayLike, condition: ArrayLike | None = None, *, per_value: bool = False
    ) -> Array:
        """Returns the exact log-probability of each image, or its log-density.

        Args:
            images: `[B, H, W, C]`.
            condition: That of the images.
            per_value: Whether to return the term of each value instead of their sum.

        Returns:
            Nats, `[B]`; with `per_value`, `[B, H, W, C]`, each term given all earlier values. In
            the plain multi-scale form (`copy_coarse=False`) this is the probability that the image is
            drawn *and* that no scale contradicts the one before.

        Raises:
            UserError: The shape, the type or a value does not fit the model.
        """
        return self._evaluated(_log_prob, (self.pixel_rnn, per_value), images, condition)

    def conditionals(self, images: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """Returns the distribution of each value given all earlier ones, in generation order.

        Returns:
            Normalised log-probabilities in nats, `[B, H, W, C, K]`.

        Raises:
            UserError: As `log_prob`; or the model is a density or in the plain multi-scale form,
                and has no such distributions.
        """
        self.pixel_rnn.discrete_likelihood()
        return self._evaluated(_conditionals, (self.pixel_rnn,), images, condition)

    def bits_per_dim(self, images: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """Returns -log2 p(image) / (H * W * C) of each image, `[B]`.

        Raises:
            UserError: As `log_prob`; or the values are real, and have no levels to count bits of.
        """
        if not self.levels:
            raise UserError("real values have no bits/dim: use log_prob, in nats per their unit")
        nats = -self.log_prob(images, condition)
        return jnp.asarray(bits_per_dim(nats, self.pixel_rnn.dims))

    def sample(
        self,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        temperature: float = 1.0,
    ) -> Array:
        """Draws images.

        Image i depends only on the key, i and its condition, not on n or the number of devices.

        Args:
            key: A key of `jax.random`, such as `jax.random.key(0)`.
            n: Number of images.
            condition: That of the n images.
            temperature: Logits are divided by it; 0 takes the most probable value of each pixel.

        Returns:
            `[n, H, W, C]` integers of the smallest of uint8, uint16 and int32 that K fits in
            (floats from a density).

        Raises:
            UserError: n or the temperature is negative, the temperature of a density is not 1, the
                key is not one of `jax.random`, or the condition does not fit.
        """
        return self._drawn(_sample, key, n, condition, temperature)

    def sample_and_log_prob(
        self,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        temperature: float = 1.0,
    ) -> tuple[Array, Array]:
        """Returns what `sample` does, and the log-probabilities under which it is drawn, `[n]`.

        At another temperature than 1 these are not those of the model, which `log_prob` gives.

        Raises:
            UserError: As `sample`; or the model is in the plain multi-scale form.
        """
        return self._drawn(_sample_and_log_prob, key, n, condition, temperature)

    def complete(
        self,
        key: Array,
        images: ArrayLike,
        known: ArrayLike,
        condition: ArrayLike | None = None,
        *,
        particles: int = 1,
    ) -> Completion:
        """Draws the unknown values of partly known images.

        With one particle the draw is exact if every unknown value comes after all known ones in
        generation order, as with the upper half known and one scale. For any other mask use more,
        say 64: they are weighted by how well they fit the known values that come later.

        Args:
            key: A key of `jax.random`. Image i depends only on it, i and the other arguments.
            images: `[B, H, W, C]`; any values where unknown.
            known: Booleans: `[H, W]`, `[H, W, C]`, `[B, H, W, 1]` or `[B, H, W, C]`.
            condition: That of the images.
            particles: Number of completions that are drawn for each image, of which one is kept.

        Returns:
            The completed images, in which known values are unchanged, and how good they are.

        Raises:
            UserError: As `log_prob`; or the key is not one of `jax.random`, the mask does not fit,
                or there are no particles.
        """
        model = self.pixel_rnn
        rows = model.check_completion(key, images, known, self._numbered(condition), particles)
        lanes = _lanes() if particles == 1 else 1
        return in_batches(
            _complete,
            (model, particles),
            (self.params, key),
            (np.arange(len(rows[0])), *rows),
            least=lanes,
            most=lanes,
            progress="completing",
        )

    def compress(
        self, images: ArrayLike, condition: ArrayLike | None = None, *, fast: bool = False
    ) -> bytes:
        """Compresses images `[N, H, W, C]` without loss, to about -log2 p(image) bits each.

        Their condition is stored as well.

        Args:
            images: The images.
            condition: That of the images.
            fast: Whether to compute in float32, two to three times as fast. Only the same kind of
                machine with the same versions of JAX then decompresses the result; otherwise any
                machine does.

        Raises:
            UserError: As `conditionals`; or the condition is too large for the format.
        """
        checked = Batch(*self.pixel_rnn.checked(images, self._numbered(condition)))
        batch, file = jax.tree.map(np.asarray, checked), io.BytesIO()

        def rows_of(rows: np.ndarray) -> Batch:
            return jax.tree.map(lambda array: array[rows], batch)

        source = archive.Source(len(batch.images), rows_of)
        archive.write(self.pixel_rnn, self.params, source, file, fast=fast)
        return file.getvalue()

    def decompress(
        self, data: bytes, *, skip_damaged: bool = False, return_condition: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray | None]:
        """Returns the images `[N, H, W, C]` that `compress` was given.

        Args:
            data: What `compress` returned, or the content of a file of the command `compress`.
            skip_damaged: Whether to leave out the images of damaged blocks instead of raising. The
                warning `LostImages`, a `UserWarning`, says which they are.
            return_condition: Whether to return their condition as well, None of a model without.

        Raises:
            UserError: The data are damaged, cut off, or of another model or format, or of the fast
                form and another machine.
        """
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise UserError(f"data must be bytes, got {type(data).__name__}")
        part, lost = archive.read_all(
            self.pixel_rnn, self.params, io.BytesIO(data), skip_damaged=skip_damaged
        )
        if lost:
            warnings.warn(lost, LostImages, stacklevel=2)
        return tuple(part.batch) if return_condition else part.batch.images

    def decompress_stream(self, file: BinaryIO) -> Iterator[Images]:
        """Yields the images of a compressed file as its blocks come, with condition and names.

        Args:
            file: A file that is open for reading in binary mode, which may be a pipe.

        Raises:
            UserError: As `decompress`.
        """
        if not hasattr(file, "read") or isinstance(file, io.TextIOBase):
            raise UserError(f'file must be open for reading in binary mode, "rb", got {file!r}')
        return self._parts(file)

    def _parts(self, file: BinaryIO) -> Iterator[Images]:
        count = 0
        for part in archive.read(self.pixel_rnn, self.params, file):
            if isinstance(part, archive.Damage):
                raise UserError(f"{part}: get an intact copy, or use decompress(skip_damaged=True)")
            rows = range(count, count := count + len(part.batch.images))
            yield Images(*part.batch, np.array(part.names or [*map(str, rows)]))

    def _evaluated(
        self,
        function: Callable[..., Array],
        static: tuple[Any, ...],
        images: ArrayLike,
        condition: ArrayLike | None,
    ) -> Array:
        checked = self.pixel_rnn.checked(images, self._numbered(condition))
        if not checks.all_values((self.params, checked)):
            return function(*static, self.params, checked)
        most = images_at_a_time(self.pixel_rnn)
        return in_batches(function, static, self.params, checked, most=most)

    def _drawn(
        self,
        function: Callable[..., PyTree],
        key: Array,
        n: int,
        condition: ArrayLike | None,
        temperature: float,
    ) -> PyTree:
        numbered = self._numbered(condition)
        self._check_memory(n)
        condition, divisor = self.pixel_rnn.check_sampling(key, n, numbered, temperature)
        return in_batches(
            function,
            (self.pixel_rnn,),
            (self.params, key, divisor),
            (np.arange(n), condition),
            least=_lanes(),
            most=_lanes(),
            progress="generating",
        )

    def _check_memory(self, n: Any) -> None:
        """Refuses a number of images that this machine cannot hold, before any work."""
        needed = int(n) * self.pixel_rnn.dims * 4 if checks.is_integer(n) else 0
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > memory:
            raise UserError(
                f"{n:,} images take {needed / 2**30:,.0f} GiB, this machine has "
                f"{memory / 2**30:,.0f}: draw fewer at a time, each part with a key of its own"
            )

    def _numbered(self, condition: Any) -> Any:
        """Returns a condition in which names of classes have become their numbers."""
        return checks.numbered(condition, self.class_names)


def images_at_a_time(model: PixelRNN) -> int:
    """Returns how many images a device computes at a time, so that they fit in its memory."""
    config, (height, width, channels) = model.config, model.image_shape
    widest = max(8 * config.features, config.head_features, channels * model.levels)
    return max(1, min(64, BATCH_BYTES // (4 * height * width * widest)))


def _lanes() -> int:
    return CPU_LANES if jax.default_backend() == "cpu" else ACCELERATOR_LANES


def _log_prob(model: PixelRNN, per_value: bool, params: PyTree, rows: Any) -> Array:
    return model.log_prob(params, *rows, per_value=per_value)


def _conditionals(model: PixelRNN, params: PyTree, rows: Any) -> Array:
    return model.conditionals(params, *rows)


def _sample(model: PixelRNN, common: PyTree, rows: Any) -> Array:
    (params, key, temperature), (indices, condition) = common, rows
    n, first = len(indices), indices[0]
    return model.sample(params, key, n, condition, temperature=temperature, first=first)


def _sample_and_log_prob(model: PixelRNN, common: PyTree, rows: Any) -> tuple[Array, Array]:
    (params, key, temperature), (indices, condition) = common, rows
    n, first = len(indices), indices[0]
    return model.sample_and_log_prob(
        params, key, n, condition, temperature=temperature, first=first
    )


def _complete(model: PixelRNN, particles: int, common: PyTree, rows: Any) -> Completion:
    (params, key), (indices, *arguments) = common, rows
    return model.complete(params, key, *arguments, particles=particles, first=indices[0])
