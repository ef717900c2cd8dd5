"""How likely images are: the negative log-likelihood of a split, in nats and in bits/dim."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.data import Batch, Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import PixelRNN, bits_per_dim
from pixel_rnn_jax.runs.workdir import ImageFormat, Run, open_run
from pixel_rnn_jax.runtime import devices, processes

T = TypeVar("T")
PyTree = Any

BASELINE_IMAGES = 50_000
"""So many training images are enough for histograms of single pixels."""


@dataclass(frozen=True)
class Evaluation:
    """The mean negative log-likelihood of the images of a split, or log-density under a density.

    Attributes:
        nats: Mean over the images, in nats an image.
        standard_error: Of that mean, as an estimate of what the source of the images has; in nats.
            NaN for a single image.
        dims: H * W * C, the values of one image.
        images: Number of images.
        shares: Height of each scale, coarsest first, to its share of `nats`.
        step: That the parameters are from, if they come from a run.
        counted: Images that were counted for the histograms of independent pixels.
    """

    nats: float
    standard_error: float
    dims: int
    images: int
    shares: dict[int, float] = field(default_factory=dict)
    step: int | None = None
    counted: int = 0

    @property
    def bits_per_dim(self) -> float:
        """The mean in bits per value of an image."""
        return float(bits_per_dim(self.nats, self.dims))

    @property
    def bits_per_dim_error(self) -> float:
        """The standard error of `bits_per_dim`."""
        return float(bits_per_dim(self.standard_error, self.dims))

    def record(self) -> dict[str, float]:
        """Returns what a run records of a validation."""
        record = {
            "validation/nats": self.nats,
            "validation/standard_error": self.standard_error,
            "validation/bits_per_dim": self.bits_per_dim,
        }
        for height, nats in self.shares.items() if len(self.shares) > 1 else ():
            record[f"validation/nats_of_height_{height}"] = nats
        return record

    def __str__(self) -> str:
        return (
            f"{self.nats:.3f} ± {self.standard_error:.3f} nats, "
            f"{self.bits_per_dim:.4f} ± {self.bits_per_dim_error:.4f} bits/dim "
            f"({self.images:,} images)"
        )


def evaluate(
    workdir: epath.PathLike, split: str = "test", batch_size: int | None = None
) -> Evaluation:
    """Evaluates the trained model of a workdir.

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
    mesh = devices.make_mesh()
    run = open_run(workdir, mesh)
    source = open_split(run, split)
    size = batch_size or run.config.train.eval_batch_size
    return measure(run.model, run.params, source, size, mesh, step=run.step)


def open_split(run: Run, split: str, *, noise: int | None = None) -> Source:
    """Opens a split of the data set that a run was trained on.

    Args:
        run: The run.
        split: As `evaluate` takes it.
        noise: As `data.open_source` takes it.

    Raises:
        UserError: There is no such split, or its images are of another format.
    """
    source = data.open_source(run.config, split, noise=noise)
    found = ImageFormat(source.image_shape, source.levels)
    if found != run.images:
        raise UserError(
            f"the run was trained on images of {run.images}, the split {split} has {found}: "
            "choose another split, or restore the data set"
        )
    return source


def measure(
    model: PixelRNN,
    params: PyTree,
    source: Source,
    batch_size: int,
    mesh: Mesh,
    *,
    step: int | None = None,
) -> Evaluation:
    """Evaluates every image of `source` exactly once; see `nats_of_images`."""
    nats = nats_of_images(model, params, source, batch_size, mesh)
    return summary(nats, model, step=step)


def nats_of_images(
    model: PixelRNN, params: PyTree, source: Source, batch_size: int, mesh: Mesh
) -> np.ndarray:
    """Returns the nats of every image of `source` in order, `[N, S]`.

    Args:
        model: The model.
        params: Its parameters.
        source: The images, of which each of several processes computes a share.
        batch_size: Images at a time; rounded up to a multiple of the number of devices.
        mesh: The devices.
    """
    batch_size = math.ceil(batch_size / mesh.size) * mesh.size
    nats_fn = _compiled(model, mesh)

    def batches() -> Iterator[Array]:
        for batch, _ in data.eval_batches(
            source,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ):
            yield nats_fn(params, devices.shard_batch(mesh, batch))

    count = math.ceil(len(source) / batch_size)
    progress = terminal.bar(_one_late(batches()), count, "evaluating", "batch")
    own = np.stack([devices.local_rows(nats) for nats in progress])  # [batches, rows, S]
    every = processes.all_gather(own)  # [processes, batches, rows, S]
    in_order = every.swapaxes(0, 1).reshape(-1, own.shape[-1])
    return in_order[: len(source)].astype(np.float64)  # What fills the last batch up is at the end.


@functools.lru_cache(maxsize=4)
def _compiled(model: PixelRNN, mesh: Mesh) -> Any:
    def nats(params: PyTree, batch: Batch) -> Array:
        images = batch.images
        if model.likelihood.discrete and jnp.issubdtype(images.dtype, jnp.floating):
            # The density that a discrete model implies is constant over the cell of each level.
            images = jnp.floor(images).astype(jnp.int32)
        return model.nats_by_scale(params, images, batch.labels)

    return devices.map_batch(nats, mesh)


def independent_pixels(train: Source, test: Source, batch_size: int) -> Evaluation:
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
    nats = [(total - np.log(counts[position, image])).sum() for image in _images(test, batch_size)]
    values = np.array(nats)
    return dataclasses.replace(_mean(values, math.prod(test.image_shape)), counted=images)


def _images(source: Source, batch_size: int) -> Iterator[np.ndarray]:
    """Yields every image once, as integers [H * W * C]: noise is taken away again."""
    for batch, valid in data.eval_batches(source, batch_size=batch_size):
        yield from np.asarray(batch.images)[valid].reshape(valid.sum(), -1).astype(np.int32)


def summary(by_scale: np.ndarray, model: PixelRNN, *, step: int | None = None) -> Evaluation:
    """Returns the mean of the nats of images, `[N, S]`, under a model."""
    heights = [scale.network.image_shape[0] for scale in model.scales]
    shares = dict(zip(heights, by_scale.mean(0).tolist(), strict=True))
    mean = _mean(by_scale.sum(-1), math.prod(model.image_shape))
    return dataclasses.replace(mean, shares=shares, step=step)


def _mean(values: np.ndarray, dims: int) -> Evaluation:
    """Returns the mean of the nats of images, `[N]`."""
    count = len(values)
    error = float(values.std(ddof=1) / count**0.5) if count > 1 else math.nan
    return Evaluation(float(values.mean()), error, dims, count)


def _one_late(items: Iterable[T]) -> Iterator[T]:
    """Yields each item once the next has been made: a device that makes them is never idle."""
    items = iter(items)
    previous = next(items)
    for item in items:
        yield previous
        previous = item
    yield previous
