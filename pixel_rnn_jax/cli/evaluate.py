"""The command `evaluate`."""

import json
import os
from argparse import ArgumentParser, Namespace

import numpy as np
from etils import epy

from pixel_rnn_jax.cli import flags
from pixel_rnn_jax.system.errors import UserError

with epy.lazy_imports():
    import jax

    from pixel_rnn_jax import data, image_model
    from pixel_rnn_jax import model as models
    from pixel_rnn_jax.data import pictures
    from pixel_rnn_jax.runs import source
    from pixel_rnn_jax.system import devices, files, processes, terminal
    from pixel_rnn_jax.training import evaluate as evaluate_lib

PIXEL_MAP_IMAGES = 16


def evaluate(arguments: Namespace) -> None:
    """Prints the likelihood of the images of a split, or of your own, in nats and bits/dim."""
    if arguments.per_value and not arguments.out:
        raise UserError("--per_value needs --out=FILE.npz")
    flags.join(arguments)
    run = source.open_run(arguments.source, devices.make_mesh())
    split, model = flags.open_split(arguments, run), run.image_model
    size = image_model.images_at_a_time(model.pixel_rnn) * jax.device_count()
    if run.identity is not None:
        size = run.config.train.eval_batch_size
    evaluation = evaluate_lib.score(
        model.pixel_rnn, model.params, split, batch_size=size, per_value=arguments.per_value
    )
    name = arguments.split or (None if arguments.images else "test")
    if arguments.json:
        where = {"workdir": arguments.source, "path": arguments.images, "split": name}
        values = where | {"step": run.step} | evaluation.numbers()
        terminal.print_result(json.dumps(values, default=os.fspath))
    else:
        terminal.print_result(evaluation.report(str(arguments.images or name), run.step))
    if arguments.out and processes.is_first():
        _write_scores(evaluation, split, arguments.out)
    if arguments.pixel_map and processes.is_first():
        _draw_pixel_map(model, split, arguments.pixel_map)


def evaluate_flags(parser: ArgumentParser) -> None:
    flags.model_flags(parser)
    flags.images_flags(parser)
    add = parser.add_argument
    help_ = "an .npz file for the scores of single images: nats, bits_per_dim and names"
    add("--out", type=flags.output(".npz"), help=help_)
    add("--per_value", action="store_true", help="write nats_per_value, of each value, too")
    help_ = (
        f"a .png file for {PIXEL_MAP_IMAGES} images, each beside a map of the nats of its pixels"
    )
    add("--pixel_map", type=flags.output(".png"), help=help_)
    add("--json", action="store_true", help="print the results as a JSON object")
    flags.process_flags(parser)
    flags.data_flags(parser)


def _write_scores(evaluation: "evaluate_lib.Evaluation", split: "data.Split", out: str) -> None:
    nats = evaluation.nats_per_image
    arrays = {"nats": nats, "names": np.array(split.dataset.names())}
    if not evaluation.real:
        arrays["bits_per_dim"] = np.asarray(models.bits_per_dim(nats, evaluation.num_values))
    if evaluation.nats_per_value is not None:
        arrays["nats_per_value"] = evaluation.nats_per_value
    with files.atomic_write(out) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    terminal.log(f"{out}: the scores of {terminal.plural(len(nats), 'image')}")


def _draw_pixel_map(model: "image_model.ImageModel", split: "data.Split", out: str) -> None:
    images, condition = split.batch(data.evenly_spaced(len(split), PIXEL_MAP_IMAGES))
    # On this process's devices alone, wherever the parameters lie.
    local = image_model.ImageModel(model.pixel_rnn, jax.device_get(model.params))
    nats = -np.asarray(local.log_prob(images, condition, per_value=True)).sum(-1)
    images, levels = pictures.as_levels(images, model.levels)
    picture, black, white = pictures.pixel_map(images, nats, levels)
    with files.atomic_write(out) as file:
        file.write(pictures.png(picture))
    terminal.log(f"{out}: {len(images)} images; white is {white:.2f} nats, black is {black:.2f}")
