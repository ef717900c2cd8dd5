"""How likely images are: the negative log-likelihood of a split, in nats and in bits/dim."""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.data import Batch, Readable, Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import bits_per_dim
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.image_format import ImageFormat
from pixel_rnn_jax.runs.resume import read_digests
from pixel_rnn_jax.runs.workdir import Run
from pixel_rnn_jax.runtime import devices, processes

PyTree = Any

BASELINE_IMAGES = 50_000
"""Training images that the baseline counts at most: enough for histograms of single values."""
BASELINE_COUNTS = 2**24
"""Counts that it keeps in memory at a time."""


@dataclass(frozen=True)
class Evaluation:
    """The mean negative log-likelihood of images, or log-density under a density.

    Attributes:
        nats: The mean, in nats per image.
        standard_error: The standard error of `nats`; NaN for a single image.
        dims: H * W * C, the values of one image.
        images: The number of images.
        shares: For each scale, coarsest first, the height of its images and its share of `nats`.
        density: Whether it is of a density at dequantised values, with one draw for each image.
        real: Whether it is of a density of real values, in nats per unit of theirs; they have no
            bits/dim.
        step: The training step that the parameters are from, if they are those of a run.
        counted: Of the independent-pixel model: the training images in its histograms.
    """

    nats: float
    standard_error: float
    dims: int
    images: int
    shares: dict[int, float] = field(default_factory=dict)
    density: bool = False
    real: bool = False
    step: int | None = None
    counted: int = 0

    @property
    def bits_per_dim(self) -> float:
        """The mean, in bits for each value of an image."""
        return float(bits_per_dim(self.nats, self.dims))

    def record(self) -> dict[str, float]:
        """Returns what a run records of a validation: the shares only of several scales."""
        record = {"validation/nats": self.nats, "validation/standard_error": self.standard_error}
        if not self.real:
            record["validation/bits_per_dim"] = self.bits_per_dim
        for height, nats in self.shares.items() if len(self.shares) > 1 else ():
            record[f"validation/nats_of_height_{height}"] = nats
        return record

    def __str__(self) -> str:
        mean, error, unit = self.nats / self.dims, self.standard_error / self.dims, "nats a value"
        if not self.real:
            mean, error, unit = mean / math.log(2), error / math.log(2), "bits/dim"
        images = terminal.counted(self.images, "image")
        if math.isnan(error):  # Of a single image.
            return f"{self.nats:.3f} nats, {mean:.4f} {unit} ({images})"
        nats = f"{self.nats:.3f} ± {self.standard_error:.3f} nats"
        return f"{nats}, {mean:.4f} ± {error:.4f} {unit} ({images})"


def format_of(source: Source) -> ImageFormat:
    """Returns the format of the images of a source, without what standardises them."""
    return ImageFormat(source.image_shape, source.levels, class_names=source.class_names)


def open_split(run: Run, split: str, *, noise: int | None = None) -> Source:
    """Opens a split of the data set that a run was trained on.

    It is "train", "validation" or "test" as the config names them, or any split of the set. `noise`
    numbers the draw that dequantises the values. With None a density has the first draw, and no
    other model has noise.

    Raises:
        UserError: There is no such split, or its images are of another format.
    """
    return open_split_of(run.config, run.image_format, split, noise=noise)


def open_split_of(
    config: Config, image_format: ImageFormat, split: str, *, noise: int | None = None
) -> Source:
    """Opens a split as `open_split` does, of a run whose parameters are not needed."""
    source = data.open_source(config, split, noise=noise)
    found = format_of(source)
    if not found.same_images(image_format):
        raise UserError(
            f"the run was trained on images of {image_format}, the split {split} has {found}: "
            "choose another split, or restore the data set"
        )
    return source


def with_data(run: Run, workdir: epath.PathLike, name: str) -> Run:
    """Returns a run whose data set is now where `name` says; see `data.moved`.

    Raises:
        UserError: There is no such set, or its validation images are not those of the run.
    """
    config = dataclasses.replace(run.config, data=data.moved(run.config.data, name))
    stored = read_digests(workdir).get("validation")
    if stored and data.digest(data.open_source(config, "validation")) != stored:
        raise UserError(
            f"{name} does not hold the images that {workdir} was trained on: name their new place, "
            "or evaluate other images with --images"
        )
    return dataclasses.replace(run, config=config)


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
    return summary(nats_of_images(model, params, source, batch_size, mesh), model, step=step)


def nats_of_images(
    model: PixelRNN,
    params: PyTree,
    source: Readable,
    batch_size: int,
    mesh: Mesh,
    *,
    per_value: bool = False,
) -> np.ndarray:
    """Returns the nats of every image of `source` in order, `[N, S]`, in every process.

    With `per_value` they are those of every value, `[N, S, H, W, C]`, in the model's precision.
    It does not depend on `batch_size`, which is rounded up to a multiple of the number of devices.
    A batch is no larger than all images need, rounded up to a power of two for each device.
    """
    per_device = 1 << (math.ceil(len(source) / mesh.size) - 1).bit_length()
    batch_size = min(math.ceil(batch_size / mesh.size), per_device) * mesh.size
    nats_fn = _compiled(model, mesh, per_value)
    results = (
        nats_fn(params, devices.shard_batch(mesh, batch))
        for batch, _ in data.eval_batches(
            source,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
    )
    # The next batch is dispatched before a result is waited for, so that no device is idle.
    one_late = (result for result, _ in itertools.pairwise(itertools.chain(results, [None])))
    count = math.ceil(len(source) / batch_size)
    progress = terminal.bar(one_late, count, "evaluating", "batches")
    own = np.stack([devices.local_rows(nats) for nats in progress])  # [batches, rows, S, ...]
    every = processes.all_gather(own)  # [processes, batches, rows, S, ...]
    in_order = every.swapaxes(0, 1).reshape(-1, *own.shape[2:])
    nats = in_order[: len(source)]  # The rest fills up the last batch.
    return nats if per_value else nats.astype(np.float64)


@functools.lru_cache(maxsize=4)
def _compiled(model: PixelRNN, mesh: Mesh, per_value: bool) -> Any:
    def nats(params: PyTree, batch: Batch) -> Array:
        images = batch.images
        if model.likelihood.discrete and jnp.issubdtype(images.dtype, jnp.floating):
            # The density that a discrete model implies is constant over the cell of each level.
            images = jnp.floor(images).astype(jnp.int32)
        return model.nats_by_scale(params, images, batch.condition, per_value=per_value, parts=0)

    return devices.map_batch(nats, mesh)


def independent_pixels(train: Source, test: Source, batch_size: int) -> Evaluation:
    """Evaluates the model that ignores all context, which a PixelRNN has to beat.

    Each position and channel has a distribution of its own: the histogram of its values in the
    training images (the first `BASELINE_IMAGES` of them), with one added to every count. Of real
    values it is a Gaussian with their mean and variance.
    """
    if not train.levels:
        return _independent_gaussians(train, test, batch_size)
    dims, counted = math.prod(train.image_shape), min(len(train), BASELINE_IMAGES)
    most = max(1, BASELINE_COUNTS // train.levels)
    nats = np.zeros(len(test))
    for start in range(0, dims, most):  # Once, unless there are very many levels.
        part = slice(start, min(start + most, dims))
        position = np.arange(part.stop - start)
        counts = np.ones((len(position), train.levels), np.int32)
        for image in itertools.islice(_images(train, batch_size), BASELINE_IMAGES):
            counts[position, image[part]] += 1
        logs = np.log(counts / counts[0].sum())
        nats -= [logs[position, image[part]].sum() for image in _images(test, batch_size)]
    return _mean(nats, dims, counted=counted)


def _independent_gaussians(train: Source, test: Source, batch_size: int) -> Evaluation:
    first = next(_images(train, batch_size))
    counted, total, squares = 0, np.zeros_like(first), np.zeros_like(first)
    for image in itertools.islice(_images(train, batch_size), BASELINE_IMAGES):
        # Differences from one image, so that large values lose nothing.
        counted, total, squares = (
            counted + 1,
            total + (image - first),
            squares + (image - first) ** 2,
        )
    mean, variance = first + total / counted, squares / counted - (total / counted) ** 2
    # No narrower than a component of `GaussianMixture` can be.
    variance = np.maximum(variance, 1e-8 * max(variance.mean(), 1e-30))
    nats = [
        0.5 * ((image - mean) ** 2 / variance + np.log(2 * math.pi * variance)).sum()
        for image in _images(test, batch_size)
    ]
    return _mean(np.array(nats), len(mean), counted=counted, real=True)


def _images(source: Source, batch_size: int) -> Iterator[np.ndarray]:
    """Yields every image once, `[H * W * C]`: integers without noise, or real values."""
    dtype = np.int32 if source.levels else np.float64
    for batch, valid in data.eval_batches(source, batch_size=batch_size):
        yield from np.asarray(batch.images)[valid].reshape(valid.sum(), -1).astype(dtype)


def summary(by_scale: np.ndarray, model: PixelRNN, *, step: int | None = None) -> Evaluation:
    """Returns the mean of the nats of images, `[N, S]`, under a model."""
    heights = [scale.network.image_shape[0] for scale in model.scales]
    shares = dict(zip(heights, by_scale.mean(0).tolist(), strict=True))
    real = model.levels == 0
    density = not model.likelihood.discrete and not real
    nats = by_scale.sum(-1)
    return _mean(nats, model.dims, shares=shares, density=density, real=real, step=step)


def _mean(nats: np.ndarray, dims: int, **rest: Any) -> Evaluation:
    """Returns the mean of the nats of images, `[N]`."""
    count = len(nats)
    error = float(nats.std(ddof=1) / count**0.5) if count > 1 else math.nan
    return Evaluation(float(nats.mean()), error, dims, count, **rest)
