"""How likely images are: the negative log-likelihood of a split, in nats and in bits/dim."""

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from etils import epath

from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax import data, likelihoods, parallel
from pixel_rnn_jax.checkpoints import Checkpoints
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models.pixel_rnn import PixelRNN

T = TypeVar("T")
PyTree = Any
NatsFn = Callable[[PyTree, jax.Array], jax.Array]

BASELINE_IMAGES = 50_000
"""So many training images are enough for histograms of single pixels."""


@dataclass(frozen=True)
class Evaluation:
    """The mean negative log-likelihood of the images of a split.

    Attributes:
        nats: Mean over the images, in nats per image.
        standard_error: Of that mean, as an estimate of what the source of the images has; in nats.
            NaN for a single image.
        dims: H * W * C, the values of one image.
        images: Number of images.
    """

    nats: float
    standard_error: float
    dims: int
    images: int

    @property
    def bits_per_dim(self) -> float:
        """The mean in bits per value of an image."""
        return float(likelihoods.bits_per_dim(self.nats, self.dims))

    @property
    def bits_per_dim_error(self) -> float:
        """The standard error of `bits_per_dim`."""
        return float(likelihoods.bits_per_dim(self.standard_error, self.dims))

    def __str__(self) -> str:
        return (
            f"{self.nats:.3f} ± {self.standard_error:.3f} nats, "
            f"{self.bits_per_dim:.4f} ± {self.bits_per_dim_error:.4f} bits/dim "
            f"({self.images:,} images)"
        )


def evaluate(
    workdir: epath.PathLike, split: str = "test", batch_size: int | None = None
) -> Evaluation:
    """Evaluates the trained model of a workdir, and prints the result.

    The parameters are the moving average (the parameters themselves where averaging is off) of
    the checkpoint with the best validation, or of the newest one if none has been validated.

    Args:
        workdir: Where the model was trained, or is being trained.
        split: "train", "validation" or "test" as the config names them, or any split of the set.
        batch_size: Images at a time over all devices; None takes the config's. The result does not
            depend on it.

    Raises:
        UserError: There is no trained model, its checkpoint is damaged, or there is no such split.
    """
    config = config_lib.read_config(workdir)
    source = data.open_source(config.data, split)
    trained = config_lib.read_image_format(workdir)
    found = config_lib.ImageFormat(source.image_shape, source.levels)
    if found != trained:
        raise UserError(
            f"{workdir} was trained on images of {trained}, the split {split} has {found}: "
            "choose another split, or restore the data set"
        )
    mesh = parallel.make_mesh()
    model = PixelRNN(config.model, source.image_shape, source.levels)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        step, params = best_parameters(checkpoints, config, model, mesh)
    nats_fn = parallel.map_batch(nats_per_image(model), mesh)
    result = measure(nats_fn, params, source, batch_size or config.train.eval_batch_size, mesh)
    print(f"{split}, step {step}: {result}")
    return result


def nats_per_image(model: PixelRNN) -> NatsFn:
    """Returns the loss: (parameters, images [B, H, W, C]) -> [B], minus log p(x) in nats."""

    def nats(params: PyTree, images: jax.Array) -> jax.Array:
        return -likelihoods.log_prob(logits(model, params, images), images).sum(axis=(1, 2, 3))

    return nats


def logits(model: PixelRNN, params: PyTree, images: jax.Array) -> jax.Array:
    """Returns the logits, [B, H, W, C, K] (K = 2: [B, H, W, C, 1]), of unscaled integer images."""
    return jnp.asarray(model.apply({"params": params}, likelihoods.scale(images, model.levels)))


def init_parameters(model: PixelRNN, key: jax.Array) -> PyTree:
    """Returns random parameters of `model`."""
    return model.init(key, jnp.zeros((1, *model.image_shape)))["params"]


def best_parameters(
    checkpoints: Checkpoints, config: Config, model: PixelRNN, mesh: jax.sharding.Mesh
) -> tuple[int, PyTree]:
    """Returns the step and the parameters that `evaluate` describes, on every device of `mesh`.

    Raises:
        UserError: There is no checkpoint, or it is damaged.
    """
    step = checkpoints.best_step()
    if step is None:
        step = checkpoints.latest_step()
    if step is None:
        raise UserError("there is no checkpoint in the workdir yet: train for longer")
    name = "average" if config.optimizer.average else "params"
    template = parallel.shapes_everywhere(lambda: init_parameters(model, jax.random.key(0)), mesh)
    return step, checkpoints.restore({name: template}, step)[name]


def measure(
    nats_fn: NatsFn, params: PyTree, source: data.Source, batch_size: int, mesh: jax.sharding.Mesh
) -> Evaluation:
    """Evaluates every image of `source` exactly once.

    Args:
        nats_fn: A `nats_per_image` that is spread over the devices of `mesh`.
        params: Its parameters.
        source: The images.
        batch_size: Images at a time; rounded up to a multiple of the number of devices.
        mesh: The devices.
    """
    batch_size = math.ceil(batch_size / mesh.size) * mesh.size

    def batches() -> Iterator[tuple[jax.Array, np.ndarray]]:
        for images, valid in data.eval_batches(source, batch_size=batch_size):
            yield nats_fn(params, parallel.shard_batch(mesh, images)), valid

    progress = tqdm.tqdm(
        _one_late(batches()),
        total=math.ceil(len(source) / batch_size),
        desc="evaluating",
        unit="batch",
        delay=3,
        leave=False,
        disable=None,
    )
    return _summary([np.asarray(nats, np.float64)[valid] for nats, valid in progress], source)


def independent_pixels(train: data.Source, test: data.Source, batch_size: int) -> Evaluation:
    """Evaluates the model that ignores all context: what a PixelRNN has to beat.

    Each position and channel has its own distribution, the histogram of its values in the training
    images with one added to every count. Beyond `BASELINE_IMAGES` no further images are read.

    Args:
        train: The images that are counted.
        test: The images that are evaluated.
        batch_size: Images read at a time.
    """
    position = np.arange(math.prod(train.image_shape))
    counts = np.ones((len(position), train.levels), np.int32)
    images = 0
    for image in itertools.islice(_images(train, batch_size), BASELINE_IMAGES):
        counts[position, image] += 1
        images += 1
    total = math.log(images + train.levels)
    return _summary(
        [(total - np.log(counts[position, image])).sum() for image in _images(test, batch_size)],
        test,
    )


def _images(source: data.Source, batch_size: int) -> Iterator[np.ndarray]:
    """Yields every image once, as [H * W * C]."""
    for images, valid in data.eval_batches(source, batch_size=batch_size):
        yield from images[valid].reshape(valid.sum(), -1)


def _summary(nats: Sequence[np.ndarray], source: data.Source) -> Evaluation:
    """Returns the mean of the nats per image, which come in pieces."""
    values = np.hstack(nats)
    return Evaluation(
        nats=float(values.mean()),
        standard_error=float(values.std(ddof=1) / len(values) ** 0.5)
        if len(values) > 1
        else math.nan,
        dims=math.prod(source.image_shape),
        images=len(values),
    )


def _one_late(items: Iterable[T]) -> Iterator[T]:
    """Yields each item once the next has been made: a device that makes them is never idle."""
    items = iter(items)
    previous = next(items)
    for item in items:
        yield previous
        previous = item
    yield previous
