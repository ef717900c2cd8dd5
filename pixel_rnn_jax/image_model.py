"""A model with its parameters, for use from Python: likelihoods, samples, completions, codec."""

import itertools
import math
import operator
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array
from jax.sharding import Mesh
from jax.typing import ArrayLike

from pixel_rnn_jax.codec import compression, weights
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.model import bits_per_dim, checks, parts
from pixel_rnn_jax.model.config import ModelConfig
from pixel_rnn_jax.model.generation.complete import Completion
from pixel_rnn_jax.model.parts import Part
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import batching, devices, tuning
from pixel_rnn_jax.system.errors import UserError

PyTree = Any
Method = Callable[..., PyTree]  # Of `PixelRNN`.

HUB_FILE = "model.safetensors"
"""The name of a model's file in a repository on the Hugging Face Hub."""


def create(
    model_config: ModelConfig, image_shape: tuple[int, int, int], levels: int = 0, seed: int = 0
) -> "ImageModel":
    """Creates a model with random parameters; see `PixelRNN` for the arguments and errors.

    >>> prnn.create(prnn.ModelConfig("row_lstm", layers=1), (8, 8, 3), levels=256)
    ImageModel(row_lstm, 8x8x3, 256 levels, 38,240 parameters)
    """
    model = PixelRNN(model_config, image_shape, levels)
    return ImageModel(model, jax.jit(model.init)(jax.random.key(seed)))


class ImageModel:
    """An exact-likelihood model of images: a `PixelRNN` with its parameters.

    Its methods are `PixelRNN`'s, computed for some images at a time on all devices of the process.
    They take classes by number or by name. JAX may transform `log_prob`, `conditionals` and
    `bits_per_dim`: given tracers, they are the functions of the `PixelRNN`.

    Images have any H and W. An image with a side of more than T pixels is evaluated, completed and
    compressed as a grid of parts, as equal as can be and none larger than T x T: its probability is
    the product over its parts. Samples are drawn whole.

    Attributes:
        pixel_rnn: The `PixelRNN`, whose methods are pure functions of parameters and images.
        params: Its parameters.
        class_names: The names of its classes in order; empty if they have none.
        config: The architecture, a `ModelConfig`.
        image_shape: (H, W, C) of the images of its training.
        part: T, by default the power of two from twice the longer side of these images on.
        levels: K, the number of values that a channel of a pixel can have; 0 for real values.

    >>> model = prnn.load("digits")
    >>> images = model.sample(jax.random.key(0), 3)
    >>> model.log_prob(images).shape
    (3,)
    >>> bool((model.decompress(model.compress(images)) == images).all())
    True
    """

    def __init__(self, model: PixelRNN, params: PyTree, class_names: Sequence[str] = ()):
        self.pixel_rnn, self.params, self.class_names = model, params, tuple(class_names)
        self.config, self.image_shape, self.levels = model.config, model.image_shape, model.levels
        self.part = parts.default_side(*model.image_shape[:2])
        self._placed: tuple[Mesh | None, list[Any], PyTree] = None, [], None

    def __getstate__(self) -> dict[str, Any]:
        """Returns what is pickled and copied: devices are not."""
        return vars(self) | {"_placed": (None, [], None)}

    def __repr__(self) -> str:
        config, shape = self.config, "x".join(map(str, self.image_shape))
        names = dict.fromkeys(config.scale_architectures or (config.architecture,))
        values = f"{self.levels} levels" if self.levels else "real values"
        size = sum(leaf.size for leaf in jax.tree.leaves(self.params))
        return f"ImageModel({' and '.join(names)}, {shape}, {values}, {size:,} parameters)"

    def save(self, path: epath.PathLike) -> None:
        """Writes the model to one file, which `load` reads; "model.safetensors" is a usual name.

        The safetensors file holds the architecture, the image format and the parameters.

        Raises:
            UserError: The parameters do not fit the architecture or are not finite.
        """
        weights.write(path, self.pixel_rnn, self.params, self.class_names)

    def push_to_hub(self, repo_id: str, *, private: bool = False, token: str | None = None) -> str:
        """Uploads the model to a repository on the Hugging Face Hub, which `from_pretrained` reads.

        The repository, "OWNER/NAME", is created if there is none, seen by you alone if `private`.
        The access token is by default the one of `hf auth login`. Returns the commit's address.
        """
        import huggingface_hub  # The extra `hub` has it.

        content = weights.to_bytes(self.pixel_rnn, self.params, self.class_names)
        api = huggingface_hub.HfApi(token=token)
        repo_id = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
        commit = api.upload_file(path_or_fileobj=content, path_in_repo=HUB_FILE, repo_id=repo_id)
        return str(commit.commit_url)

    def log_prob(
        self, images: ArrayLike, condition: ArrayLike | None = None, *, per_value: bool = False
    ) -> Array:
        """Returns log p(image) in nats, `[B]`, or `[B, H, W, C]`: see `PixelRNN.log_prob`."""
        return self._evaluated(PixelRNN.log_prob, images, condition, per_value=per_value)

    def conditionals(self, images: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """Returns log-probabilities `[B, H, W, C, K]`, in nats: see `PixelRNN.conditionals`."""
        return self._evaluated(PixelRNN.conditionals, images, condition)

    def bits_per_dim(self, images: ArrayLike, condition: ArrayLike | None = None) -> Array:
        """Returns -log2 p(image) / (H * W * C), `[B]`; there are no bits of real values."""
        if not self.levels:
            raise UserError("real values have no bits/dim: use log_prob, in nats per their unit")
        nats = -self.log_prob(images, condition)
        count = math.prod(np.shape(images)[1:3]) * self.image_shape[-1]
        return jnp.asarray(bits_per_dim(nats, count))

    def sample(
        self,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        size: tuple[int, int] | None = None,
        temperature: float = 1.0,
    ) -> Array:
        """Draws images `[n, H, W, C]`, the same on any number of devices: see `PixelRNN.sample`."""
        return self._drawn(PixelRNN.sample, key, n, condition, size, temperature)

    def sample_and_log_prob(
        self,
        key: Array,
        n: int,
        condition: ArrayLike | None = None,
        *,
        size: tuple[int, int] | None = None,
        temperature: float = 1.0,
    ) -> tuple[Array, Array]:
        """As `sample`, with log-probabilities `[n]` in nats: see `PixelRNN.sample_and_log_prob`."""
        return self._drawn(PixelRNN.sample_and_log_prob, key, n, condition, size, temperature)

    def complete(
        self,
        key: Array,
        images: ArrayLike,
        known: ArrayLike,
        condition: ArrayLike | None = None,
        *,
        particles: int = 1,
    ) -> Completion:
        """Completes images `[B, H, W, C]`: see `PixelRNN.complete`.

        Parts of large images without unknown values take no time, and the evidence is without them.
        """
        condition = checks.class_numbers(condition, self.class_names)
        given = checks.check_completion(self.pixel_rnn, key, images, known, condition, particles)
        _refuse_tracers((self.params, key, given))
        whole, hidden = np.array(given[0]), ~np.asarray(given[1])
        evidence, size = np.zeros(len(whole)), np.full(len(whole), particles, np.float32)
        lanes = tuning.lanes() if particles == 1 else 1
        for model, places, numbers, rows in self._in_parts(given, hidden):
            static, arguments = (model, particles), (numbers, *rows)
            results: Completion = self._in_batches(
                _complete, static, (key,), arguments, lanes, lanes, "completing"
            )
            whole = whole.astype(results.images.dtype, copy=False)
            for part, values, nats, least in zip(places, *results, strict=True):
                part.of(whole[part.picture])[...] = values
                evidence[part.picture] += nats
                size[part.picture] = min(size[part.picture], least)
        return Completion(*map(jnp.asarray, (whole, evidence, size)))

    def classify(self, images: ArrayLike) -> np.ndarray:
        """Returns the class of each image under which it has the highest p, `[B]`.

        These are names where the classes have names, otherwise numbers. It takes one `log_prob` for
        each class.
        """
        classes = self.config.condition.classes
        if not classes:
            raise UserError("classify is for a model with classes, and this one has none")
        best = np.argmax([self.log_prob(images, number) for number in range(classes)], axis=0)
        return np.array(self.class_names)[best] if len(self.class_names) == classes else best

    def compress(self, images: Any, condition: Any = None) -> bytes:
        """Compresses images without loss, to about -log2 p(image) bits each.

        They are `[N, H, W, C]`, or a list of N arrays `[H, W, C]` of several sizes. Their condition
        is stored as well. The result can be decompressed on any machine. Raises as `conditionals`.
        """
        several = isinstance(images, list) and len({np.shape(image) for image in images}) > 1
        rows = [(images, condition)]
        if several:
            one = condition is None or np.isscalar(condition)
            labels = [condition] * len(images) if one else [np.asarray(x)[None] for x in condition]
            rows = [
                (np.asarray(image)[None], label)
                for image, label in zip(images, labels, strict=True)
            ]
        every = list[Batch]()
        for row, label in rows:
            label = checks.class_numbers(label, self.class_names)
            checked, label = checks.check_images(self.pixel_rnn, row, label)
            of_each = itertools.repeat(None) if label is None else np.asarray(label)
            every += map(Batch, np.asarray(checked), of_each)
        return compression.compress(self.pixel_rnn, self.params, every, len(every), self.part)

    def decompress(
        self, data: bytes, *, skip_damaged: bool = False, return_condition: bool = False
    ) -> np.ndarray | tuple[np.ndarray, np.ndarray | None]:
        """Returns the images that `compress`, or the command, was given.

        They are `[N, H, W, C]`, or a list of N arrays if their sizes differ.

        With `skip_damaged` the images of damaged blocks are left out, and a warning says which.
        With `return_condition` their condition is returned as well, None of a model without.

        Raises:
            UserError: The data are damaged, cut off, or of another model or format.
        """
        (images, condition, _), lost = compression.decompress(
            self.pixel_rnn, self.params, data, skip_damaged=skip_damaged
        )
        if lost:
            warnings.warn(f"damaged and left out: {'; '.join(lost)}", stacklevel=2)
        return (images, condition) if return_condition else images

    def _evaluated(
        self, method: Method, images: ArrayLike, condition: ArrayLike | None, **options: bool
    ) -> Array:
        condition = checks.class_numbers(condition, self.class_names)
        rows = checks.check_images(self.pixel_rnn, images, condition)
        if not checks.all_values((self.params, rows)):
            return method(self.pixel_rnn, self.params, *rows, **options)
        whole: Any = None
        for model, places, _, cut in self._in_parts(rows):
            static, most = (method, model, tuple(options.items())), images_at_a_time(model)
            results = np.asarray(self._in_batches(evaluate_rows, static, (), cut, 1, most))
            if whole is None:
                of_image = (*rows[0].shape[1:], *results.shape[4:]) if results.ndim > 1 else ()
                whole = np.zeros((len(rows[0]), *of_image), results.dtype)
            for part, result in zip(places, results, strict=True):
                if of_image:
                    part.of(whole[part.picture])[...] = result
                else:
                    whole[part.picture] += result
        return jnp.asarray(whole)

    def _in_parts(
        self, rows: PyTree, wanted: np.ndarray | None = None
    ) -> Iterator[tuple[PixelRNN, list[Part], np.ndarray, PyTree]]:
        """Cuts rows, of images `[B, H, W, C]`, their masks and their conditions, into parts.

        Yields for each shape its model, the parts, their numbers in a key's random numbers, and
        their rows. Images of several parts have those with `wanted` values alone.
        """
        rows = jax.tree.map(np.asarray, rows)
        count, height, width, _ = rows[0].shape
        sizes = [(height, width)] * max(count, 1)
        for shape, places in parts.grids(sizes, self.part, self.pixel_rnn.stride).items():
            model, several = self.pixel_rnn.sized(*shape), shape != (height, width)
            if several and wanted is not None:
                places = [part for part in places if part.of(wanted[part.picture]).any()]
            if not several or count == 0:  # One part is the whole image.
                yield model, places[:count], np.arange(count), rows
            elif places:
                spots = [(part.picture * height + part.top) * width + part.left for part in places]
                yield model, places, np.array(spots), jax.tree.map(partial(_cut, places), rows)

    def _drawn(
        self,
        method: Method,
        key: Array,
        n: int,
        condition: ArrayLike | None,
        size: tuple[int, int] | None,
        temperature: float,
    ) -> PyTree:
        model = self.pixel_rnn.sized(*(size or self.image_shape[:2]))
        condition = checks.class_numbers(condition, self.class_names)
        condition, divisor = checks.check_sampling(model, key, n, condition, temperature)
        rows, static, lanes = (np.arange(n), condition), (method, model), tuning.lanes()
        return self._in_batches(_draw, static, (key, divisor), rows, lanes, lanes, "generating")

    def _in_batches(
        self,
        function: Method,
        static: tuple[Any, ...],
        common: tuple[Any, ...],
        rows: PyTree,
        least: int,
        most: int,
        progress: str = "",
    ) -> PyTree:
        """Calls a function of (parameters, *common) and rows in memory on all devices here."""
        _refuse_tracers((self.params, common, rows))
        count = len(jax.tree.leaves(rows)[0])
        mesh = devices.local_mesh(max(1, min(jax.local_device_count(), math.ceil(count / least))))
        batches, size = batching.slices(rows, mesh, least=least, most=most), most * mesh.size
        common = self._placed_params(mesh), *jax.device_put(common, devices.replicated(mesh))
        results = batching.in_batches(
            function, static, common, batches, count, mesh=mesh, batch_size=size, progress=progress
        )
        return jax.tree.map(jnp.asarray, results)

    def _placed_params(self, mesh: Mesh) -> PyTree:
        """Returns the parameters on a mesh; they stay there, since moving them takes time."""
        leaves, (kept_mesh, kept, placed) = jax.tree.leaves(self.params), self._placed
        same = len(leaves) == len(kept) and all(map(operator.is_, leaves, kept))
        if kept_mesh != mesh or not same or not all(isinstance(x, Array) for x in leaves):
            placed = jax.device_put(self.params, devices.replicated(mesh))
            self._placed = mesh, leaves, placed
        return placed


def images_at_a_time(model: PixelRNN) -> int:
    """Returns how many images a device computes at a time, so that they fit in its memory."""
    config, (height, width, channels) = model.config, model.image_shape
    widest = max(8 * config.features, config.head_features, channels * model.levels)
    return max(1, min(64, tuning.BATCH_BYTES // (4 * height * width * widest)))


def _refuse_tracers(arrays: PyTree) -> None:
    if not checks.all_values(arrays):
        raise UserError("inside jit or vmap, use this method of model.pixel_rnn, with model.params")


def _cut(places: list[Part], rows: np.ndarray) -> np.ndarray:
    """Returns the rows of parts: maps are cut, classes and vectors are the whole image's."""
    return np.stack([p.of(rows[p.picture]) if rows.ndim > 2 else rows[p.picture] for p in places])


# For `in_batches`, which compiles them for each model, method and option.
def evaluate_rows(
    method: Method, model: PixelRNN, options: Any, common: tuple[PyTree], rows: Any
) -> PyTree:
    """Calls a method for images and their condition, on a CPU for some at a time."""
    (height, width, _), (params,), count = model.image_shape, common, len(rows[0])
    number = tuning.parts(count, height * width, recurrent=model.recurrent)
    return tuning.in_parts(lambda part: method(model, params, *part, **dict(options)), number, rows)


def _draw(method: Method, model: PixelRNN, common: PyTree, rows: Any) -> PyTree:
    (params, key, temperature), (indices, condition) = common, rows
    n, first = len(indices), indices[0]
    return method(model, params, key, n, condition, temperature=temperature, first=first)


def _complete(model: PixelRNN, particles: int, common: PyTree, rows: Any) -> Completion:
    (params, key), (indices, *arguments) = common, rows
    return model.complete(params, key, *arguments, particles=particles, first=indices[0])
