"""The paper's comparison of discrete and continuous models, by dequantisation (section 5.1)."""

from dataclasses import dataclass

import numpy as np
from etils import epath

from pixel_rnn_jax import data
from pixel_rnn_jax.data import Source
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.models import checks
from pixel_rnn_jax.runs.workdir import Run, open_run
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training.evaluate import Evaluation, nats_of_images, open_split, summary


@dataclass(frozen=True)
class Comparison:
    """Three figures in one unit: nats per image, where densities are per unit of a level.

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
    """Evaluates a discrete and a continuous model on the same images.

    Args:
        workdir: Where the discrete model was trained.
        continuous: Where the continuous model was trained, on the same data set.
        split: As `open_split` takes it.
        draws: Number of draws of noise for each image.

    Raises:
        UserError: A workdir holds no trained model, or one of the other kind; or the two were
            trained on different images.
    """
    if draws < 1:
        raise UserError(f"draws (--dequantize) must be at least 1, got {draws}")
    mesh = devices.make_mesh()
    discrete_run, continuous_run = open_run(workdir, mesh), open_run(continuous, mesh)
    if not discrete_run.model.likelihood.discrete:
        raise UserError(
            f"{workdir} holds a continuous model: workdir (--workdir) must hold a discrete one"
        )
    if (output := continuous_run.config.model.output) != "logistic_mixture":
        raise UserError(
            f"{continuous} holds a model of model.output={output}: continuous (--continuous) must "
            "hold one that was trained with model.output=logistic_mixture"
        )
    one, other = (
        checks.condition_form(run.config.model, run.model.image_shape)
        for run in (discrete_run, continuous_run)
    )
    if one != other:
        takes = [
            f"{kind} {list(shape)}" if kind else "no condition" for shape, kind in (one, other)
        ]
        raise UserError(
            f"the models differ in their condition: {workdir} takes {takes[0]}, {continuous} "
            f"takes {takes[1]}"
        )
    source = open_split(discrete_run, split)
    noisy = [open_split(continuous_run, split, noise=draw) for draw in range(draws)]
    if not _same_images(source, noisy[0]):
        raise UserError(
            f"{workdir} and {continuous} do not have the same images in this split: train both on "
            "the same set, with the same data.binarize and splits"
        )

    def evaluated(run: Run, sources: list[Source]) -> Evaluation:
        size = run.config.train.eval_batch_size
        nats = [nats_of_images(run.model, run.params, each, size, mesh) for each in sources]
        return summary(np.mean(nats, axis=0), run.model, step=run.step)

    return Comparison(
        discrete=evaluated(discrete_run, [source]),
        implied=evaluated(discrete_run, noisy),
        continuous=evaluated(continuous_run, noisy),
    )


def _same_images(one: Source, other: Source) -> bool:
    """Whether two sources have the same images, but for the noise."""
    if (len(one), one.image_shape, one.levels) != (len(other), other.image_shape, other.levels):
        return False
    batches = zip(*(data.eval_batches(each, batch_size=200) for each in (one, other)), strict=True)
    return all((np.floor(a.images) == np.floor(b.images)).all() for (a, _), (b, _) in batches)
