"""How likely images are: the negative log-likelihood of a split, in nats and in bits/dim."""

import contextlib
import itertools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import jax
import numpy as np
from etils import epath

from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax import data, distributed, joint, likelihoods, models, parallel, terminal
from pixel_rnn_jax.checkpoints import Checkpoints
from pixel_rnn_jax.config import Config
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.joint import NatsFn
from pixel_rnn_jax.models import Model

T = TypeVar("T")
PyTree = Any

BASELINE_IMAGES = 50_000
"""So many training images are enough for histograms of single pixels."""


@dataclass(frozen=True)
class Evaluation:
    """The mean negative log-likelihood of the images of a split, or log-density under a density.

    Attributes:
        nats: Mean over the images, in nats per image.
        standard_error: Of that mean, as an estimate of what the source of the images has; in nats.
            NaN for a single image.
        dims: H * W * C, the values of one image.
        images: Number of images.
        shares: Means in nats of the scales, coarsest first, which add up to `nats`.
    """

    nats: float
    standard_error: float
    dims: int
    images: int
    shares: tuple[float, ...] = ()

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
    run = open_run(workdir, split)
    size = batch_size or run.config.train.eval_batch_size
    nats_fn = parallel.map_batch(joint.nats_by_scale(run.model), run.mesh)
    result = measure(nats_fn, run.params, run.source, size, run.mesh)
    kind = "" if run.model.likelihood.discrete else DENSITY
    terminal.say(f"{split}, step {run.step}: {result}{kind}{shares(result, run.model)}")
    return result


DENSITY = ", of a density at values with noise added: an upper bound, with one draw for each image"


def shares(result: Evaluation, model: Model) -> str:
    """Returns a further line on what each scale of a multi-scale model adds; nothing for others."""
    if len(result.shares) < 2:
        return ""
    parts = ", ".join(
        f"{height} {nats:.3f}"
        for height, nats in zip(model.config.scales, result.shares, strict=True)
    )
    return f"\nnats of the scales by height: {parts}"


@dataclass(frozen=True)
class Run:
    """A trained model and images to evaluate it on.

    Attributes:
        config: Of the run.
        model: The network.
        source: The images.
        step: That the parameters are from.
        params: The parameters, on every device of the mesh.
        mesh: All devices.
    """

    config: Config
    model: Model
    source: data.Source
    step: int
    params: PyTree
    mesh: jax.sharding.Mesh


def open_run(workdir: epath.PathLike, split: str) -> Run:
    """Opens the trained model of a workdir, with a split of the set that it was trained on.

    Raises:
        UserError: As `evaluate` says.
    """
    distributed.check()
    config = config_lib.read_config(workdir)
    source = data.source_of(config, split)
    trained = config_lib.read_image_format(workdir)
    found = config_lib.ImageFormat(source.image_shape, source.levels)
    if found != trained:
        raise UserError(
            f"{workdir} was trained on images of {trained}, the split {split} has {found}: "
            "choose another split, or restore the data set"
        )
    mesh = parallel.make_mesh()
    model = models.create(config.model, source.image_shape, source.levels)
    with contextlib.closing(Checkpoints(workdir, read_only=True)) as checkpoints:
        step, params = best_parameters(checkpoints, config, model, mesh)
    return Run(config, model, source, step, params, mesh)


def best_parameters(
    checkpoints: Checkpoints, config: Config, model: Model, mesh: jax.sharding.Mesh
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
    template = parallel.shapes_everywhere(
        lambda: joint.init_parameters(model, jax.random.key(0)), mesh
    )
    return step, checkpoints.restore({name: template}, step)[name]


def measure(
    nats_fn: NatsFn, params: PyTree, source: data.Source, batch_size: int, mesh: jax.sharding.Mesh
) -> Evaluation:
    """Evaluates every image of `source` exactly once; see `nats_of_images`."""
    return summary(nats_of_images(nats_fn, params, source, batch_size, mesh), source)


def nats_of_images(
    nats_fn: NatsFn, params: PyTree, source: data.Source, batch_size: int, mesh: jax.sharding.Mesh
) -> np.ndarray:
    """Returns the nats of every image of `source` in order, `[N, scales]`.

    Args:
        nats_fn: (parameters, batch) to nats `[B, scales]`, spread over the devices of `mesh`.
        params: Its parameters.
        source: The images, of which each of several processes computes a share.
        batch_size: Images at a time; rounded up to a multiple of the number of devices.
        mesh: The devices.
    """
    batch_size = math.ceil(batch_size / mesh.size) * mesh.size

    def batches() -> Iterator[jax.Array]:
        for batch, _ in data.eval_batches(
            source,
            batch_size=batch_size,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        ):
            yield nats_fn(params, parallel.shard_batch(mesh, batch))

    count = math.ceil(len(source) / batch_size)
    progress = terminal.bar(_one_late(batches()), count, "evaluating", "batch")
    own = np.stack([parallel.own_rows(nats) for nats in progress])  # [batches, rows, scales]
    every = parallel.from_all(own)  # [processes, batches, rows, scales]
    in_order = every.swapaxes(0, 1).reshape(-1, own.shape[-1])
    return in_order[: len(source)].astype(np.float64)  # What fills the last batch up is at the end.


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
    nats = [(total - np.log(counts[position, image])).sum() for image in _images(test, batch_size)]
    return summary(np.array(nats)[:, None], test)


def _images(source: data.Source, batch_size: int) -> Iterator[np.ndarray]:
    """Yields every image once, as integers [H * W * C]: noise is taken away again."""
    for batch, valid in data.eval_batches(source, batch_size=batch_size):
        yield from np.asarray(batch.images)[valid].reshape(valid.sum(), -1).astype(np.int32)


def summary(by_scale: np.ndarray, source: data.Source) -> Evaluation:
    """Returns the mean of the nats of every image of a source, `[N, scales]`."""
    values = by_scale.sum(-1)
    return Evaluation(
        nats=float(values.mean()),
        standard_error=float(values.std(ddof=1) / len(values) ** 0.5)
        if len(values) > 1
        else math.nan,
        dims=math.prod(source.image_shape),
        images=len(values),
        shares=tuple(by_scale.mean(0).tolist()),
    )


def _one_late(items: Iterable[T]) -> Iterator[T]:
    """Yields each item once the next has been made: a device that makes them is never idle."""
    items = iter(items)
    previous = next(items)
    for item in items:
        yield previous
        previous = item
    yield previous
