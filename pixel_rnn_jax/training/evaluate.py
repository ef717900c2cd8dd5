"""How likely images are: the negative log-likelihood of a split, in nats and in bits/dim."""

import functools
import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax import Array
from jax.sharding import Mesh

from pixel_rnn_jax import data, terminal
from pixel_rnn_jax.config import TrainConfig
from pixel_rnn_jax.data import Batch, Images, Split
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import bits_per_dim, checks
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.record import ImageFormat
from pixel_rnn_jax.runs.workdir import Run, open_run
from pixel_rnn_jax.runtime import devices, processes

PyTree = Any

BASELINE_IMAGES = 50_000
"""Training images that the baseline counts at most: enough for histograms of single values."""


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

    def numbers(self) -> dict[str, float]:
        """Returns the finite numbers by name: nats, standard error, bits/dim, several shares."""
        numbers = {"nats": self.nats, "standard_error": self.standard_error}
        if not self.real:
            numbers["bits_per_dim"] = self.bits_per_dim
        for height, nats in self.shares.items() if len(self.shares) > 1 else ():
            numbers[f"nats_of_height_{height}"] = nats
        return {name: number for name, number in numbers.items() if math.isfinite(number)}

    def __str__(self) -> str:
        mean, error, unit = self.nats / self.dims, self.standard_error / self.dims, "nats a value"
        if not self.real:
            mean, error, unit = mean / math.log(2), error / math.log(2), "bits/dim"
        images = terminal.plural(self.images, "image")
        if math.isnan(error):  # Of a single image.
            return f"{self.nats:.3f} nats, {mean:.4f} {unit} ({images})"
        nats = f"{self.nats:.3f} ± {self.standard_error:.3f} nats"
        return f"{nats}, {mean:.4f} ± {error:.4f} {unit} ({images})"


class Scores(NamedTuple):
    """The negative log-likelihoods of images, `[N]`, of their values, `[N, H, W, C]`, the mean."""

    evaluation: Evaluation
    nats: np.ndarray
    nats_per_value: np.ndarray | None


def score(
    model: PixelRNN,
    params: PyTree,
    split: Split,
    *,
    batch_size: int = TrainConfig.eval_batch_size,
    mesh: Mesh | None = None,
    step: int | None = None,
    per_value: bool = False,
) -> Scores:
    """Evaluates every image of a split exactly once; all processes get the same arrays.

    `batch_size`, of images at a time over all devices of the `mesh`, by default all there are,
    changes no result. `step` is the training step of the parameters.

    Raises:
        UserError: A value does not fit the model.
    """
    mesh = devices.make_mesh() if mesh is None else mesh
    params = jax.device_put(params, devices.replicated(mesh))
    nats = _nats_of_images(model, params, split, batch_size, mesh, per_value)
    by_scale = nats.sum(axis=(2, 3, 4), dtype=np.float64) if per_value else nats.astype(np.float64)
    heights = [scale.network.image_shape[0] for scale in model.scales]
    evaluation = _mean(
        by_scale.sum(-1),
        model.dims,
        shares=dict(zip(heights, by_scale.mean(0).tolist(), strict=True)),
        density=not model.config.discrete and model.levels > 0,
        real=model.levels == 0,
        step=step,
    )
    return Scores(evaluation, by_scale.sum(-1), nats.sum(axis=1) if per_value else None)


def _nats_of_images(
    model: PixelRNN, params: PyTree, split: Split, batch_size: int, mesh: Mesh, per_value: bool
) -> np.ndarray:
    """Returns the nats of every image in order, `[N, S]`, or of every value, `[N, S, H, W, C]`."""
    # No more than all images need, rounded up to a power of two for each device.
    per_device = 1 << (math.ceil(len(split) / mesh.size) - 1).bit_length()
    batch_size = min(math.ceil(batch_size / mesh.size), per_device) * mesh.size
    nats_fn = _compiled(model, mesh, per_value)
    results = (
        nats_fn(params, devices.shard_batch(mesh, batch))
        for batch, _ in data.eval_batches(
            split,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
    )
    # The next batch is dispatched before a result is waited for, so that no device is idle.
    one_late = (result for result, _ in itertools.pairwise(itertools.chain(results, [None])))
    count = math.ceil(len(split) / batch_size)
    progress = terminal.progress(one_late, count, "evaluating", "batches")
    local = np.stack([devices.local_rows(nats) for nats in progress])  # [batches, rows, S, ...]
    gathered = processes.all_gather(local)  # [processes, batches, rows, S, ...]
    in_order = gathered.swapaxes(0, 1).reshape(-1, *local.shape[2:])
    return in_order[: len(split)]  # The rest fills up the last batch.


@functools.lru_cache(maxsize=4)
def _compiled(model: PixelRNN, mesh: Mesh, per_value: bool) -> Any:
    def nats(params: PyTree, batch: Batch) -> Array:
        images = batch.images
        if model.config.discrete and jnp.issubdtype(images.dtype, jnp.floating):
            # The density that a discrete model implies is constant over the cell of each level.
            images = jnp.floor(images).astype(jnp.int32)
        return model.nats_by_scale(params, images, batch.condition, per_value=per_value, parts=0)

    return devices.map_batch(nats, mesh)


def independent_pixels(train: Split, test: Split, batch_size: int) -> Evaluation:
    """Evaluates the model that ignores all context, which a PixelRNN has to beat.

    Each position and channel has a distribution of its own: the histogram of its values in the
    training images (the first `BASELINE_IMAGES` of them), with one added to every count. Of real
    values it is a Gaussian with their mean and variance.
    """
    if not train.levels:
        return _independent_gaussians(train, test, batch_size)
    dims = math.prod(train.image_shape)
    position, counts = np.arange(dims), np.ones((dims, train.levels), np.int32)
    for image in itertools.islice(_images(train, batch_size), BASELINE_IMAGES):
        counts[position, image] += 1
    logs = np.log(counts / counts[0].sum())
    nats = [-logs[position, image].sum() for image in _images(test, batch_size)]
    return _mean(np.array(nats), dims, counted=min(len(train), BASELINE_IMAGES))


def _independent_gaussians(train: Split, test: Split, batch_size: int) -> Evaluation:
    first = next(_images(train, batch_size))
    counted, total, squares = 0, np.zeros_like(first), np.zeros_like(first)
    for image in itertools.islice(_images(train, batch_size), BASELINE_IMAGES):
        difference = image - first  # So that large values lose nothing.
        counted, total, squares = counted + 1, total + difference, squares + difference**2
    mean, variance = first + total / counted, squares / counted - (total / counted) ** 2
    # No narrower than a component of `GaussianMixture` can be.
    variance = np.maximum(variance, 1e-8 * max(variance.mean(), 1e-30))
    nats = [
        0.5 * ((image - mean) ** 2 / variance + np.log(2 * math.pi * variance)).sum()
        for image in _images(test, batch_size)
    ]
    return _mean(np.array(nats), len(mean), counted=counted, real=True)


def _images(split: Split, batch_size: int) -> Iterator[np.ndarray]:
    """Yields every image once, `[H * W * C]`: integers without noise, or real values."""
    dtype = np.int32 if split.levels else np.float64
    for batch, valid in data.eval_batches(split, batch_size=batch_size):
        yield from np.asarray(batch.images)[valid].reshape(valid.sum(), -1).astype(dtype)


def _mean(nats: np.ndarray, dims: int, **rest: Any) -> Evaluation:
    """Returns the mean of the nats of images, `[N]`."""
    count = len(nats)
    error = float(nats.std(ddof=1) / count**0.5) if count > 1 else math.nan
    return Evaluation(float(nats.mean()), error, dims, count, **rest)


def format_of(split: Split) -> ImageFormat:
    """Returns the format of the images of a split, without what standardises them."""
    return ImageFormat(split.image_shape, split.levels, class_names=split.class_names)


def open_run_split(run: Run, split: str, *, noise: int | None = None) -> Split:
    """Opens a split of the data that a run was trained on: see `data.open_split`.

    Raises:
        UserError: There is no such split, or the data are not those that the run was trained on.
    """
    config = run.record.config
    for name, digest in run.record.data.items():
        if data.digest(data.open_split(config, name)) != digest:
            raise UserError(
                f"data.name={config.data.name} does not hold the {name} images of the run: restore "
                "them, give their place by --config.data.name or --config.data.data_dir, or "
                "evaluate other images with --images"
            )
    source = data.open_split(config, split, noise=noise)
    if not format_of(source).same_images(run.record.image_format):
        raise UserError(
            f"--split={split} has {format_of(source)}, the run was trained on images of "
            f"{run.record.image_format}"
        )
    return source


def read_images(source: epath.PathLike, split: str | None = None) -> Images:
    """Reads all images of a path, or of a split of a run.

    Args:
        source: A folder of image files, an image file, or an .npy or .npz file, whose images are
            returned as they are stored; or the workdir of a run, whose images are returned as its
            model sees them, binarised for example.
        split: A subfolder, an array of an .npz file, or "train", "validation" or "test" (images
            without such parts are divided, always in the same way); by default all images. Of a
            run, a split as `pixel-rnn-jax evaluate` takes it; by default "test".

    Raises:
        UserError: There is no such split, the images have several sizes, or labels or a condition
            do not fit them.
    """
    if not (epath.Path(source) / "config.json").exists():
        return data.read_files(source, split)
    images = open_run_split(open_run(source, devices.local_mesh(1)), split or "test")
    return Images(*images.batch(np.arange(len(images))), images.names())


class Comparison(NamedTuple):
    """The paper's comparison of a discrete and a continuous model, by dequantisation (section 5.1).

    Densities are per unit of a level.

    Attributes:
        discrete: The negative log-probability of the images.
        implied: The negative log-density that the discrete model implies at dequantised images. It
            is constant over the unit cell of each level, so it equals `discrete`: a check.
        continuous: The negative log-density of the continuous model at dequantised images, an upper
            bound of the negative log-probability that it implies. The standard error is over the
            images, each with the mean over its draws.
    """

    discrete: Evaluation
    implied: Evaluation
    continuous: Evaluation


def compare(
    workdir: epath.PathLike, continuous: epath.PathLike, split: str = "test", *, draws: int = 1
) -> Comparison:
    """Evaluates a discrete model and one of `output="logistic_mixture"` on the same images.

    Each image of the split (see `open_run_split`) has so many draws of noise.

    Raises:
        UserError: A workdir holds a model of the other kind, or the two have other images or
            another condition.
    """
    mesh = devices.make_mesh()
    runs = open_run(workdir, mesh), open_run(continuous, mesh)
    if not runs[0].model.config.discrete:
        raise UserError(f"--workdir={workdir} must hold a discrete model")
    if runs[1].model.config.output != "logistic_mixture":
        raise UserError(
            f"--continuous={continuous} must hold a model of model.output=logistic_mixture"
        )
    one, other = (checks.condition_form(run.model.config, run.model.image_shape) for run in runs)
    clean = open_run_split(runs[0], split)
    noisy = [open_run_split(runs[1], split, noise=draw) for draw in range(draws)]
    if one != other or not _same_images(clean, noisy[0]):
        raise UserError(
            f"--workdir={workdir} and --continuous={continuous} must have the same images and the "
            f"same condition in --split={split}"
        )

    def mean_over(run: Run, splits: list[Split]) -> Evaluation:
        scores = [score(run.model, run.params, images, step=run.step) for images in splits]
        nats, first = np.mean([each.nats for each in scores], axis=0), scores[0].evaluation
        rest = dict(shares=first.shares, density=first.density, step=run.step)
        return _mean(nats, first.dims, **rest)

    return Comparison(
        mean_over(runs[0], [clean]), mean_over(runs[0], noisy), mean_over(runs[1], noisy)
    )


def _same_images(one: Split, other: Split) -> bool:
    """Whether two splits have the same images, but for the noise."""
    if (len(one), one.image_shape, one.levels) != (len(other), other.image_shape, other.levels):
        return False
    batches = zip(*(data.eval_batches(each, batch_size=200) for each in (one, other)), strict=True)
    return all((np.floor(a.images) == np.floor(b.images)).all() for (a, _), (b, _) in batches)


def every_class(n: int, num_classes: int) -> np.ndarray:
    """Returns `[n]` classes in increasing order, whose counts differ by one at most."""
    return np.arange(n) * num_classes // n
