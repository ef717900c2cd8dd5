"""The verb `evaluate`."""

import numpy as np

from pixel_rnn_jax import pictures
from pixel_rnn_jax.cli.flags import Flags, process_flags
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices, processes
from pixel_rnn_jax.terminal import say
from pixel_rnn_jax.training import compare as compare_lib
from pixel_rnn_jax.training import evaluate as evaluate_lib
from pixel_rnn_jax.training.evaluate import Evaluation

PIXEL_MAP_IMAGES = 16


def evaluate_flags(values: Flags) -> None:
    """Defines the flags of `evaluate`."""
    values.text(
        "split",
        "Images to evaluate: train, validation or test, as the config of the run names them, or "
        "any split of the data set, such as 'test[:100]'.",
        "test",
    )
    values.text(
        "pixel_map",
        f"A .png file for a picture of where the nats are: the first {PIXEL_MAP_IMAGES} images of "
        "the split, each beside the negative log-likelihood of its pixels.",
    )
    values.text(
        "continuous",
        "With --dequantize: the workdir of a model that was trained with model.output=continuous.",
    )
    values.integer(
        "dequantize",
        "Compares the discrete model of --workdir with the density of --continuous, on this many "
        "draws of uniform noise for each image.",
        lower_bound=1,
    )
    process_flags(values)


def evaluate(values: Flags) -> None:
    """Prints the likelihood of the images of a split, in nats and bits/dim."""
    workdir, split, draws = values.workdir, values.split, values.dequantize
    if bool(draws) != bool(values.continuous):
        raise UserError(
            "--dequantize=N and --continuous=DIR, the workdir of a continuous model, need each "
            "other"
        )
    join(values)
    if values.pixel_map:
        _draw_pixel_map(workdir, split, values.pixel_map)
    if draws:
        found = compare_lib.compare(workdir, values.continuous, split, draws=draws)
        say(f"discrete, {split}, step {found.discrete.step}: {found.discrete}")
        say(f"density that it implies, {draws} draws of noise: {found.implied}")
        say(f"continuous, step {found.continuous.step}, {draws} draws of noise: {found.continuous}")
        return
    say_evaluation(split, evaluate_lib.evaluate(workdir, split))


def join(values: Flags) -> None:
    """Joins the processes that the flags of `process_flags` name."""
    processes.join(
        values.coordinator, values.num_processes, values.process_id, cluster=values.distributed
    )


def say_evaluation(split: str, result: Evaluation) -> None:
    """Prints an evaluation of a run, with the share of each scale if there are several."""
    kind = ""
    if result.density:
        kind = ", of a density at values with noise added: an upper bound, with one draw an image"
    say(f"{split}, step {result.step}: {result}{kind}")
    if len(result.shares) > 1:
        shares = ", ".join(f"{height} {nats:.3f}" for height, nats in result.shares.items())
        say(f"nats of the scales by height: {shares}")


def _draw_pixel_map(workdir: str, split: str, out: str) -> None:
    """Draws the first images of a split, each beside its negative log-likelihood by pixel."""
    pictures.check_picture_out(out)
    run = open_run(workdir, devices.local_mesh(1))
    model = ImageModel(run.model, run.params)
    source = evaluate_lib.open_split(run, split)
    images, condition = source.batch(np.arange(min(PIXEL_MAP_IMAGES, len(source))))
    nats = -np.asarray(model.log_prob(images, condition, per_pixel=True)).sum(-1)
    images, levels = pictures.as_levels(images, model.levels)
    picture = pictures.pixel_map(images, nats, levels)
    if processes.first():
        pictures.write_picture(picture, out)
    say(f"{out}: {len(images)} images; white is {nats.max():.2f} nats, black is none")
