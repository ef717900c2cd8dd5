"""The verb `evaluate`."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from pixel_rnn_jax import outputs, pictures
from pixel_rnn_jax.cli.flags import Flags, data_flag, images_flag, process_flags
from pixel_rnn_jax.cli.images import open_images
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel, load, of_run
from pixel_rnn_jax.runs.export import is_exported
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices, processes
from pixel_rnn_jax.terminal import say
from pixel_rnn_jax.training import compare as compare_lib
from pixel_rnn_jax.training.evaluate import Evaluation, open_split, with_data
from pixel_rnn_jax.training.scores import Images, score

PIXEL_MAP_IMAGES = 16


def evaluate_flags(values: Flags) -> None:
    """Defines the flags of `evaluate`."""
    values.text(
        "split",
        "Images to evaluate: train, validation or test, as the config of the run names them, or "
        "any split of the data set, such as 'test[:100]'. With --images, a split of those; all of "
        "them without --split.",
        "test",
    )
    images_flag(values, "evaluate", "Default: the --split of the run.")
    data_flag(values)
    values.text(
        "out",
        "An .npz file for the scores of single images: arrays `nats`, `bits_per_dim` (of levels) "
        "and `names`, the names of image files or rows of an array.",
    )
    values.switch(
        "per_pixel", "With --out: adds an array `nats_per_value`, the nats of each value."
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
    """Prints the likelihood of the images of a split, or of your own, in nats and bits/dim."""
    workdir, split, draws = values.workdir, values.split, values.dequantize
    if bool(draws) != bool(values.continuous):
        raise UserError(
            "--dequantize=N and --continuous=DIR, the workdir of a continuous model, need each "
            "other"
        )
    if draws and (values.images or values.out or values.data):
        raise UserError(
            "--dequantize is for a split of the run: leave out --images, --out and --data"
        )
    if values.per_pixel and not values.out:
        raise UserError("--per_pixel needs --out=FILE.npz, which gets the nats of each value")
    if values.out:
        _check_out(values.out)
    if values.pixel_map:
        pictures.check_picture_out(values.pixel_map)
    join(values)
    if draws:
        _compare(values)
        return
    name, options = split, {}
    images: Images
    if is_exported(workdir):
        if not values.images:
            raise UserError(
                f"{workdir} holds a model without its data set: give --images=PATH, or the workdir "
                "of the run"
            )
        model = load(workdir)
    else:
        run = open_run(workdir, devices.make_mesh())
        model = of_run(run)
        options = {"batch_size": run.config.train.eval_batch_size, "step": run.step}
    if values.images:
        name, part = values.images, split if values["split"].present else None
        images = open_images(name, model.pixel_rnn, model.class_names, part)
    else:
        if values.data:
            run = with_data(run, workdir, values.data)
        images = open_split(run, split)
    if values.pixel_map:
        _draw_pixel_map(model, images, values.pixel_map)
    per_pixel = values.per_pixel
    found = score(model.pixel_rnn, model.params, images, per_pixel=per_pixel, **options)
    say_evaluation(name, found.evaluation)
    if values.out:
        _write(found.arrays(images.record_names()), values.out)


def _compare(values: Flags) -> None:
    """Prints the figures of a discrete and a continuous model on the same images."""
    split, draws = values.split, values.dequantize
    if values.pixel_map:
        run = open_run(values.workdir, devices.local_mesh(1))
        _draw_pixel_map(of_run(run), open_split(run, split), values.pixel_map)
    found = compare_lib.compare(values.workdir, values.continuous, split, draws=draws)
    say(f"discrete, {split}, step {found.discrete.step}: {found.discrete}")
    say(f"density that it implies, {draws} draws of noise: {found.implied}")
    say(f"continuous, step {found.continuous.step}, {draws} draws of noise: {found.continuous}")


def _check_out(out: str) -> None:
    """Checks, before any work, that `out` names an .npz file."""
    outputs.check_name(out)
    if Path(out).suffix != ".npz":
        raise UserError(f"scores must be written to a file that ends in .npz, got {out!r}")
    if Path(out).is_dir():
        raise UserError(f"{out} is a folder: give --out the name of a file")


def _write(arrays: dict[str, Any], out: str) -> None:
    if not processes.first():
        return
    with outputs.writing(out) as file:
        np.savez(file, **arrays)
    say(f"{out}: the scores of {len(arrays['nats']):,} images")


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
    step = "" if result.step is None else f", step {result.step}"
    say(f"{split}{step}: {result}{kind}")
    if len(result.shares) > 1:
        shares = ", ".join(f"{height} {nats:.3f}" for height, nats in result.shares.items())
        say(f"nats of the scales by height: {shares}")


def _draw_pixel_map(model: ImageModel, source: Images, out: str) -> None:
    """Draws the first images of a source, each beside its negative log-likelihood by pixel."""
    images, condition = source.batch(np.arange(min(PIXEL_MAP_IMAGES, len(source))))
    # On the devices of this process alone, wherever the parameters lie.
    model = ImageModel(model.pixel_rnn, jax.device_get(model.params))
    nats = -np.asarray(model.log_prob(images, condition, per_pixel=True)).sum(-1)
    images, levels = pictures.as_levels(images, model.levels)
    picture = pictures.pixel_map(images, nats, levels)
    if processes.first():
        pictures.write_picture(picture, out)
    say(f"{out}: {len(images)} images; white is {nats.max():.2f} nats, black is none")
