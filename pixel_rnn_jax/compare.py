"""The paper's comparison of discrete and continuous models, by dequantisation (section 5.1)."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from etils import epath

from pixel_rnn_jax import data, evaluate, joint, parallel
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.evaluate import Evaluation, NatsFn, Run
from pixel_rnn_jax.joint import Batch

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
    """Evaluates a discrete and a continuous model on the same dequantised images; prints both.

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
    discrete_run, continuous_run = (
        evaluate.open_run(workdir, split),
        evaluate.open_run(continuous, split),
    )
    _check(discrete_run, continuous_run, workdir, continuous)
    model = discrete_run.model

    def of_cell(params: PyTree, batch: Batch) -> Any:
        images = jnp.floor(batch.images).astype(jnp.int32)
        return joint.nats_by_scale(model)(params, batch._replace(images=images))

    nats = _nats(discrete_run, joint.nats_by_scale(model), discrete_run.source)
    found = Comparison(
        discrete=evaluate.summary(nats, discrete_run.source),
        implied=_over_draws(discrete_run, of_cell, split, draws),
        continuous=_over_draws(
            continuous_run, joint.nats_by_scale(continuous_run.model), split, draws
        ),
    )
    print(f"discrete, {split}, step {discrete_run.step}: {found.discrete}")
    print(f"density that it implies, {draws} draws of noise: {found.implied}")
    print(f"continuous, step {continuous_run.step}, {draws} draws of noise: {found.continuous}")
    return found


def _check(discrete: Run, continuous: Run, workdir: Any, other: Any) -> None:
    if not discrete.model.likelihood.discrete:
        raise UserError(f"{workdir} holds a continuous model: give --workdir a discrete one")
    if continuous.model.likelihood.discrete:
        raise UserError(
            f"{other} holds a discrete model: give --continuous one that was trained with "
            "model.output=continuous"
        )
    images = [
        (run.config.data.name, run.config.data.binarize, run.source.image_shape, run.source.levels)
        for run in (discrete, continuous)
    ]
    if images[0] != images[1] or len(discrete.source) != len(continuous.source):
        raise UserError(
            f"{workdir} and {other} were trained on different images ({images[0]} and {images[1]}):"
            " train both on the same"
        )


def _over_draws(run: Run, nats_fn: NatsFn, split: str, draws: int) -> Evaluation:
    """Returns the evaluation of the mean over draws of noise of each image."""
    noisy = dataclasses.replace(run.config.model, output="continuous", scales=())
    noisy = dataclasses.replace(noisy, scale_architectures=())
    total = np.zeros(())
    for draw in range(draws):
        source = data.open_source(run.config.data, split, noisy, draw=draw)
        total = total + _nats(run, nats_fn, source)
    return evaluate.summary(total / draws, run.source)


def _nats(run: Run, nats_fn: NatsFn, source: data.Source) -> np.ndarray:
    mapped = parallel.map_batch(nats_fn, run.mesh)
    size = run.config.train.eval_batch_size
    return evaluate.nats_of_images(mapped, run.params, source, size, run.mesh)
