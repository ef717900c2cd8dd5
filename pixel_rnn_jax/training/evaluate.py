"""How likely images are: the negative log-likelihood of a split, in nats and in bits/dim."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import jax
import numpy as np
from jax.sharding import Mesh

from pixel_rnn_jax import data
from pixel_rnn_jax.data import Split
from pixel_rnn_jax.data.dataset import stacked
from pixel_rnn_jax.image_model import evaluate_rows, images_at_a_time
from pixel_rnn_jax.model import bits_per_dim
from pixel_rnn_jax.model.parts import default_side
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.system import batching, devices, processes, terminal
from pixel_rnn_jax.system.trees import PyTree

BASELINE_IMAGES, BASELINE_BINS = 50_000, 256
"""Training images that the baseline counts at most, and bins of its histograms."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Negative log-likelihoods of images in nats, or negative log-densities under a density.

    Attributes:
        nats_per_image: `[N]`.
        values: H * W * C of each image, `[N]`, or of all.
        real: Whether values are real: there are no bits/dim.
        bound: Whether values got noise: `nats` is an upper bound for the levels.
        shares: The share of each scale in `nats` by the height of its images, coarsest first.
        nats_per_value: `[N, H, W, C]`, or a list of N arrays of several sizes, if asked for.
    """

    nats_per_image: np.ndarray
    values: np.ndarray | int
    real: bool = False
    bound: bool = False
    shares: dict[int, float] = field(default_factory=dict)
    nats_per_value: np.ndarray | list[np.ndarray] | None = None

    @property
    def num_values(self) -> float:
        """The mean over the images of their values."""
        return float(np.mean(self.values))

    @property
    def nats(self) -> float:
        """The mean over the images, in nats per image."""
        return float(self.nats_per_image.mean())

    @property
    def standard_error(self) -> float:
        """The standard error of `nats`; NaN for a single image."""
        count = len(self.nats_per_image)
        return float(self.nats_per_image.std(ddof=1) / count**0.5) if count > 1 else math.nan

    @property
    def bits_per_dim(self) -> float:
        """The mean over the values of all images, in bits."""
        return float(bits_per_dim(self.nats, self.num_values))

    def numbers(self) -> dict[str, float]:
        """Returns the finite numbers by name, with the shares of several scales."""
        numbers = {"nats": self.nats, "standard_error": self.standard_error}
        if not self.real:
            numbers["bits_per_dim"] = self.bits_per_dim
        for height, nats in self.shares.items() if len(self.shares) > 1 else ():
            numbers[f"nats_of_height_{height}"] = nats
        numbers["images"] = len(self.nats_per_image)
        return {name: number for name, number in numbers.items() if math.isfinite(number)}

    def __str__(self) -> str:
        several = len(self.nats_per_image) > 1
        text = f"{self.nats:.3f}{f' ± {self.standard_error:.3f}' * several} nats"
        if not self.real:
            error = bits_per_dim(self.standard_error, self.num_values)
            text += f", {self.bits_per_dim:.4f}{f' ± {error:.4f}' * several} bits/dim"
        return f"{text} ({terminal.plural(len(self.nats_per_image), 'image')})"

    def report(self, name: str, step: int | None) -> str:
        """Returns the result for people, with the share of each scale if there are several."""
        lines = [f"{name}{'' if step is None else f', step {step}'}: {self}"]
        if self.bound:
            lines[0] += ", of a density at values with one draw of noise: an upper bound"
        if len(self.shares) > 1:
            shares = ", ".join(f"{height} {nats:.3f}" for height, nats in self.shares.items())
            lines.append(f"nats of the scales by height: {shares}")
        return "\n".join(lines)


def score(
    model: PixelRNN,
    params: PyTree,
    split: Split,
    *,
    batch_size: int | None = None,
    mesh: Mesh | None = None,
    per_value: bool = False,
    part: int = 0,
) -> Evaluation:
    """Evaluates every image of a split exactly once; all processes get the same arrays.

    `batch_size` counts images over all devices of the `mesh`; it changes no result. `part` is T of
    `model.parts`, 0 for the default.
    """
    mesh = devices.make_mesh() if mesh is None else mesh
    part = part or default_side(*model.image_shape[:2])
    common = jax.device_put((params,), devices.replicated(mesh))
    sizes, channels = split.dataset.sizes, model.image_shape[-1]
    by_scale = np.zeros((len(split), len(model.scales)))
    values = [np.zeros((*size, channels), np.float32) for size in sizes] if per_value else []
    for places, of_shape in split.parts(part, model.stride):
        sized = model.sized(*of_shape.image_shape[:2])
        # No more than all images need, rounded up to a power of two for each device.
        most = 1 << (math.ceil(len(places) / mesh.size) - 1).bit_length()
        wanted = batch_size or images_at_a_time(sized) * mesh.size
        size = min(math.ceil(wanted / mesh.size), most) * mesh.size
        batches = data.eval_batches(of_shape, batch_size=size, **processes.index_and_count())
        nats = batching.in_batches(
            evaluate_rows,
            (type(model).nats_by_scale, sized, (("per_value", per_value),)),
            common,
            (batch for batch, _ in batches),
            len(places),
            mesh=mesh,
            batch_size=size,
            progress="evaluating",
        )
        for place, row in zip(places, nats, strict=True):
            if per_value:
                place.of(values[place.picture])[...] = row.sum(axis=0)
            by_scale[place.picture] += row.reshape(len(row), -1).sum(-1, dtype=np.float64)
    heights = [scale.network.image_shape[0] for scale in model.scales]
    return Evaluation(
        by_scale.sum(-1),
        channels * np.prod(sizes, axis=1),
        real=model.levels == 0,
        bound=model.likelihood.dequantised,
        shares=dict(zip(heights, by_scale.mean(0).tolist(), strict=True)),
        nats_per_value=stacked(values, (), np.float32) if per_value else None,
    )


def independent_pixels(train: Split, test: Split, batch_size: int) -> Evaluation:
    """Evaluates the model that ignores all context, which a PixelRNN has to beat.

    Each position and channel has its own histogram of levels in the first `BASELINE_IMAGES`
    training images, with one added to every count, and at most `BASELINE_BINS` bins.
    """
    n, size = math.prod(train.image_shape), math.ceil(train.levels / BASELINE_BINS)
    position, counts = np.arange(n), np.ones((n, math.ceil(train.levels / size)), np.int32)
    for image in itertools.islice(_levels(train, batch_size), BASELINE_IMAGES):
        counts[position, image // size] += 1
    logs = np.log(counts / counts[0].sum() / size)
    nats = [-logs[position, image // size].sum() for image in _levels(test, batch_size)]
    return Evaluation(np.array(nats), n)


def _levels(split: Split, batch_size: int) -> Iterator[np.ndarray]:
    """Yields every image once, `[H * W * C]`, without noise."""
    for batch, valid in data.eval_batches(split, batch_size=batch_size):
        yield from np.asarray(batch.images)[valid].reshape(valid.sum(), -1).astype(np.int32)
