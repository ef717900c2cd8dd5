"""The verb `evaluate`."""

from typing import Any

import jax
import numpy as np

from pixel_rnn_jax import outputs, pictures
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.cli.images import open_images, without_data
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import ImageModel, images_at_a_time, load, of_run
from pixel_rnn_jax.runs.export import is_exported
from pixel_rnn_jax.runs.workdir import open_run
from pixel_rnn_jax.runtime import devices, processes
from pixel_rnn_jax.terminal import counted, show, show_json
from pixel_rnn_jax.training import compare as compare_lib
from pixel_rnn_jax.training.evaluate import Evaluation, open_split, with_data
from pixel_rnn_jax.training.pixel_map import draw_pixel_map
from pixel_rnn_jax.training.scores import Images, score


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
    if values.per_value and not values.out:
        raise UserError("--per_value needs --out=FILE.npz, which gets the nats of each value")
    join(values)
    if values.out and processes.first():  # It alone writes.
        outputs.check_file(values.out, ".npz", "scores")
    if values.pixel_map and processes.first():
        pictures.check_picture_out(values.pixel_map)
    if draws:
        _compare(values)
        return
    images: Images
    if is_exported(workdir):
        if not values.images:
            raise without_data(workdir)
        model = load(workdir)
        options = {"batch_size": images_at_a_time(model.pixel_rnn) * jax.device_count()}
    else:
        run = open_run(workdir, devices.make_mesh())
        model = of_run(run)
        options = {"batch_size": run.config.train.eval_batch_size, "step": run.step}
    if values.images:
        split = split if values["split"].present else None
        images = open_images(values.images, model.pixel_rnn, model.class_names, split)
    else:
        if values.data:
            run = with_data(run, workdir, values.data)
        images = open_split(run, split)
    per_value = values.per_value
    found = score(model.pixel_rnn, model.params, images, per_value=per_value, **options)
    show_evaluation(values.images or split, found.evaluation)
    if values.out:
        _write(found.arrays(images.record_names()), values.out)
    if values.pixel_map:
        _draw_pixel_map(model, images, values.pixel_map)
    written = {"out": values.out, "pixel_map": values.pixel_map}
    where = {"workdir": workdir, "path": values.images, "split": split}
    show_json(**where, **_numbers(found.evaluation), **written)


def _compare(values: Flags) -> None:
    """Prints the figures of a discrete and a continuous model on the same images."""
    split, draws = values.split, values.dequantize
    found = compare_lib.compare(values.workdir, values.continuous, split, draws=draws)
    show(f"discrete, {split}, step {found.discrete.step}: {found.discrete}")
    noise = f"{counted(draws, 'draw')} of noise"
    show(f"density that it implies, {noise}: {found.implied}")
    show(f"continuous, step {found.continuous.step}, {noise}: {found.continuous}")
    if values.pixel_map:
        run = open_run(values.workdir, devices.local_mesh(1))
        _draw_pixel_map(of_run(run), open_split(run, split), values.pixel_map)
    where = {"workdir": values.workdir, "continuous_workdir": values.continuous, "split": split}
    numbers = {name: _numbers(result) for name, result in vars(found).items()}
    show_json(**where, draws=draws, **numbers, pixel_map=values.pixel_map)


def _numbers(found: Evaluation) -> dict[str, Any]:
    """Returns an evaluation for JSON; real values have no bits/dim."""
    numbers = {**vars(found), "bits_per_dim": None if found.real else found.bits_per_dim}
    del numbers["counted"]  # Of the baseline.
    return numbers


def _write(arrays: dict[str, Any], out: str) -> None:
    if not processes.first():
        return
    with outputs.writing(out) as file:
        np.savez(file, **arrays)
    show(f"{out}: the scores of {counted(len(arrays['nats']), 'image')}")


def join(values: Flags) -> None:
    """Joins the processes that the flags of `process_flags` name."""
    processes.join(values.coordinator, values.num_processes, values.process_id, values.distributed)


def show_evaluation(split: str, result: Evaluation) -> None:
    """Prints an evaluation of a run, with the share of each scale if there are several."""
    kind = ""
    if result.density:
        kind = ", of a density at values with noise added: an upper bound, with one draw an image"
    step = "" if result.step is None else f", step {result.step}"
    show(f"{split}{step}: {result}{kind}")
    if len(result.shares) > 1:
        shares = ", ".join(f"{height} {nats:.3f}" for height, nats in result.shares.items())
        show(f"nats of the scales by height: {shares}")


def _draw_pixel_map(model: ImageModel, source: Images, out: str) -> None:
    """Draws the first images of a source, each beside its negative log-likelihood by pixel."""
    found = draw_pixel_map(model, source)
    if processes.first():
        pictures.write_picture(found.picture, out)
    black = f"{found.black:.2f}" if found.black else "none"
    show(f"{out}: {found.images} images; white is {found.white:.2f} nats, black is {black}")
