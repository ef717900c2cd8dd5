"""The paper's comparison of discrete and continuous models, by dequantisation (section 5.1)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from pixel_rnn_jax import data, evaluate, joint, parallel, terminal
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.evaluate import Evaluation, Run
from pixel_rnn_jax.images import Batch
from pixel_rnn_jax.joint import NatsFn

PyTree = Any


@dataclass(frozen=True)
class Comparison:
    """Three figures in one unit: nats an image, a density per unit of a level.

    Attributes:
        discrete: The negative log-probability of the images.
        implied: The negative log-density at dequantised images that the discrete model implies, a
            density that is constant over the unit cell of each level. It is `discrete` again, by
            construction: a check and no result.
        continuous: The negative log-density that the continuous model has there: an upper bound of
            the negative log-probability that it implies. The standard error is over the images,
            after the mean over the draws of each.
    """

    discrete: Evaluation
    implied: Evaluation
    continuous: Evaluation


def compare(
    workdir: epath.PathLike, continuous: epath.PathLike, split: str = "test", *, draws: int = 1
) -> Comparison:
    """Evaluates a discrete and a continuous model on the same images, and prints the three figures.

    Args:
        workdir: Where the discrete model was trained.
        continuous: Where the continuous one was trained, on the same data set.
        split: See `evaluate.evaluate`.
        draws: Independent draws of the noise for each image.

    Raises:
        UserError: There is no trained model in one of the workdirs, or not of that kind; or they
            were trained on different images.
    """
    if draws < 1:
        raise UserError(f"dequantize must be at least 1, got {draws}")
    runs = evaluate.open_run(workdir, split), evaluate.open_run(continuous, split)
    _check(runs, (workdir, continuous))
    discrete_fn, continuous_fn = (joint.nats_by_scale(run.model) for run in runs)

    def of_cell(params: PyTree, batch: Batch) -> jax.Array:
        images = jnp.floor(batch.images).astype(jnp.int32)
        return discrete_fn(params, batch._replace(images=images))

    found = Comparison(
        discrete=_mean(runs[0], discrete_fn, [runs[0].source]),
        implied=_mean(runs[0], of_cell, _noisy(runs[0], split, draws)),
        continuous=_mean(runs[1], continuous_fn, _noisy(runs[1], split, draws)),
    )
    terminal.say(f"discrete, {split}, step {runs[0].step}: {found.discrete}")
    terminal.say(f"density that it implies, {draws} draws of noise: {found.implied}")
    terminal.say(f"continuous, step {runs[1].step}, {draws} draws of noise: {found.continuous}")
    return found


def _check(runs: tuple[Run, Run], workdirs: tuple[epath.PathLike, epath.PathLike]) -> None:
    discrete, continuous = runs
    if not discrete.model.likelihood.discrete:
        raise UserError(f"{workdirs[0]} holds a continuous model: give --workdir a discrete one")
    if continuous.model.likelihood.discrete:
        raise UserError(
            f"{workdirs[1]} holds a discrete model: give --continuous one that was trained with "
            "model.output=continuous"
        )
    sources = discrete.source, continuous.source
    formats = [(source.image_shape, source.levels, len(source)) for source in sources]
    batches = zip(*(data.eval_batches(source, batch_size=200) for source in sources), strict=False)
    if formats[0] != formats[1] or any(
        (np.floor(one.images) != np.floor(other.images)).any() for (one, _), (other, _) in batches
    ):
        raise UserError(
            f"{workdirs[0]} and {workdirs[1]} do not have the same images in this split: train "
            "both on the same set, with the same data.binarize and splits"
        )


def _noisy(run: Run, split: str, draws: int) -> Iterator[data.Source]:
    """Yields the images with each draw of the noise."""
    for draw in range(draws):
        yield data.open_source(run.config.data, split, classes=run.model.config.classes, noise=draw)


def _mean(run: Run, nats_fn: NatsFn, sources: Iterable[data.Source]) -> Evaluation:
    """Returns the evaluation of the mean of each image over the sources."""
    mapped = parallel.map_batch(nats_fn, run.mesh)
    size = run.config.train.eval_batch_size
    nats = [
        evaluate.nats_of_images(mapped, run.params, source, size, run.mesh) for source in sources
    ]
    return evaluate.summary(np.mean(nats, axis=0), run.source)
