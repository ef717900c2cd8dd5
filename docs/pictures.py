"""Draws pictures of the documentation that no command draws.

    python docs/pictures.py masks --model=mnist --out=docs/images/mnist-masks.png
    python docs/pictures.py curves --out=docs/images/curves.svg docs/logs/a docs/logs/b

`masks` completes test images of a bundled model, of which different parts are known: one kind of
mask in each row, and for each image the original, its known part and the completion. `curves` draws
the validations of several runs, against steps and against the time of training.
"""

import argparse
import json
from pathlib import Path

import jax
import matplotlib.figure
import numpy as np

import pixel_rnn_jax as prnn
from pixel_rnn_jax import bundled, pictures

IMAGES = 5
PARTICLES = 256
UNITS = {"nats": "nats", "bits_per_dim": "bits/dim"}


def kinds(height: int, width: int) -> dict[str, np.ndarray]:
    """Returns masks `[H, W]` by name, True where a pixel is known."""
    rows, columns = np.indices((height, width))
    middle = (abs(2 * rows - height + 1) < height / 2) & (abs(2 * columns - width + 1) < width / 2)
    return {
        "upper half": rows < height // 2,
        "lower half": rows >= height // 2,
        "left half": columns < width // 2,
        "stripes": rows // 3 % 2 == 0,
        "columns": columns // 3 % 2 == 0,
        "a tenth, at random": np.random.default_rng(0).random((height, width)) < 0.1,
        "all but the middle": ~middle,
    }


def draw_masks(name: str, out: Path) -> None:
    """Completes the same images under each mask."""
    model = prnn.load(name)
    images, condition, _ = prnn.read_images(bundled.path(name), f"test[:{IMAGES}]")
    masks, completed = [], []
    for number, (kind, mask) in enumerate(kinds(*model.image_shape[:2]).items()):
        key = jax.random.key(number)
        completion = model.complete(key, images, mask, condition, particles=PARTICLES)
        smallest = np.min(completion.effective_sample_size)
        print(f"{kind}: effective sample size at least {smallest:.1f} of {PARTICLES}", flush=True)
        masks.append(np.broadcast_to(mask[None, ..., None], images.shape))
        completed.append(np.asarray(completion.images))
    originals = np.concatenate([images] * len(masks))
    picture = pictures.completions(
        originals, np.concatenate(masks), np.concatenate(completed), model.levels, columns=IMAGES
    )
    out.write_bytes(pictures.png(picture))


def draw_curves(logs: list[Path], unit: str, out: Path) -> None:
    """Draws the validations of runs, each with the name of its folder."""
    figure = matplotlib.figure.Figure(figsize=(9.6, 3.6), layout="constrained")
    by_step, by_time = figure.subplots(1, 2, sharey=True)
    curves = []
    for log in logs:
        records = map(json.loads, (log / "metrics.jsonl").read_text().splitlines())
        validations = [record for record in records if f"validation/{unit}" in record]
        nats = [record[f"validation/{unit}"] for record in validations]
        by_step.plot([record["step"] / 1000 for record in validations], nats, ".-", label=log.name)
        by_time.plot([record["seconds"] / 60 for record in validations], nats, ".-")
        curves.append(nats)
    # The first validation may be far above, and leaves the picture.
    low, high = min(map(min, curves)), max(nats[1] for nats in curves)
    by_step.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
    by_step.set(xlabel="thousands of steps", ylabel=f"validation, {UNITS[unit]}")
    by_time.set(xlabel="minutes of training")
    for axes in (by_step, by_time):
        axes.grid(alpha=0.3)
    by_step.legend()
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Draws what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    commands = parser.add_subparsers(required=True, dest="command")
    masks = commands.add_parser("masks", help="completions under many kinds of masks")
    masks.add_argument("--model", required=True, help="name of a bundled model")
    curves = commands.add_parser("curves", help="validations of several runs")
    curves.add_argument("logs", nargs="+", type=Path, help="folders in docs/logs, or workdirs")
    curves.add_argument("--unit", choices=UNITS, default="nats", help="default: %(default)s")
    for command in (masks, curves):
        command.add_argument("--out", required=True, type=Path)
    flags = parser.parse_args()
    if flags.command == "masks":
        draw_masks(flags.model, flags.out)
    else:
        draw_curves(flags.logs, flags.unit, flags.out)


if __name__ == "__main__":
    main()
