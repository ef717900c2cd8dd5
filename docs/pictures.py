"""Draws pictures that no command draws.

    python docs/pictures.py masks --model=mnist --out=docs/images/mnist-masks.png
    python docs/pictures.py curves --out=docs/images/curves.svg a runs/b
    python docs/pictures.py page --model=mnist --out=docs/images/page.png

`masks` completes test images of which different parts are known: one kind of mask in each row, and
for each image the original, its known part and the completion. --data_name or --data_dir names
data that were moved. `curves` draws the validations of runs that were given equal time, against
steps and against the fraction of that time; it needs the logs alone. `page` completes half of a
test image in web/index.html, by Chromium and playwright.
"""

import argparse
import io
import json
import shutil
import tempfile
from pathlib import Path

import jax
import matplotlib.figure
import numpy as np
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli.flags import data_flags
from pixel_rnn_jax.data import pictures
from pixel_rnn_jax.runs.source import open_run
from pixel_rnn_jax.system.files import BUNDLED
from pixel_rnn_jax.training import log as training_log

IMAGES = 5
PARTICLES = 256
UNITS = {"nats": "nats per image", "bits_per_dim": "bits/dim"}


def masks(height: int, width: int) -> dict[str, np.ndarray]:
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


def draw_masks(model_name: str, data_name: str, data_dir: str, out: Path) -> None:
    """Completes the same images under each mask."""
    run = open_run(model_name)
    model, split = run.image_model, run.read_split("test", name=data_name, data_dir=data_dir)
    images, condition = split.batch(np.arange(IMAGES))
    known, completed = [], []
    for number, (name, mask) in enumerate(masks(*model.image_shape[:2]).items()):
        key = jax.random.key(number)
        completion = model.complete(key, images, mask, condition, particles=PARTICLES)
        smallest = np.min(completion.effective_sample_size)
        print(f"{name}: effective sample size at least {smallest:.1f} of {PARTICLES}", flush=True)
        known.append(np.broadcast_to(mask[None, ..., None], images.shape))
        completed.append(np.asarray(completion.images))
    originals = np.concatenate([images] * len(known))
    picture = pictures.completions(
        originals, np.concatenate(known), np.concatenate(completed), model.levels, columns=IMAGES
    )
    out.write_bytes(pictures.png(picture))


def draw_page(model_name: str, out: Path) -> None:
    """Takes a picture of the page with a half-hidden image and its completions."""
    from playwright import sync_api  # No dependency of the package.

    image = np.load(BUNDLED / model_name / "slice.npz")["images"][0]
    with tempfile.TemporaryDirectory() as folder, sync_api.sync_playwright() as session:
        prnn.load(model_name).save(file := Path(folder) / f"{model_name}.safetensors")
        options = dict(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        tab = session.chromium.launch(**options).new_page(viewport={"width": 800, "height": 700})
        tab.set_default_timeout(600_000)
        tab.goto((Path(__file__).parents[1] / "web" / "index.html").as_uri())
        tab.set_input_files("#file", file)
        tab.locator("#status", has_text="16 images").wait_for()
        tab.evaluate("(x) => take(x, (at) => at < model.size / 2)", image.ravel().tolist())
        tab.click("#complete")
        tab.locator("#status", has_text="log p -").wait_for()
        Image.open(io.BytesIO(tab.screenshot())).quantize(64).save(out, optimize=True)


def validations_of(run: str, unit: str) -> np.ndarray:
    """Returns the step and the value of each validation of a run `[2, N]`."""
    if (Path(run) / "metrics.jsonl").exists():
        records, name = training_log.read_metrics(run), f"validation/{unit}"
        return np.array([(each["step"], each[name]) for each in records if name in each]).T
    lines = map(json.loads, (Path(__file__).parent / "logs" / "curves.jsonl").open())
    validations = next(line["validations"] for line in lines if line["name"] == run)
    return np.array([(each["step"], each[unit]) for each in validations]).T


def draw_curves(logs: list[str], unit: str, out: Path) -> None:
    """Draws the validations of runs."""
    figure = matplotlib.figure.Figure(figsize=(9.6, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    validations = []
    for log in logs:
        steps, values = validations_of(log, unit)
        left.plot(steps / 1000, values, marker=".", label=Path(log).name)
        right.plot(steps / steps[-1], values, marker=".", label=Path(log).name)
        validations.append(values)
    # The first may be far above, and runs out of the picture.
    low, high = min(map(min, validations)), max(values[:2][-1] for values in validations)
    if (gap := high - low) > 0:
        left.set_ylim(low - 0.05 * gap, high + 0.05 * gap)
    left.set(xlabel="thousands of steps", ylabel=f"validation, {UNITS[unit]}")
    right.set(xlabel="fraction of the time")
    for axes in (left, right):
        axes.grid(alpha=0.3)
    right.legend()
    figure.savefig(out, metadata={"Date": None})


def main() -> None:
    """Draws what the command line asks for."""
    formatter = argparse.RawDescriptionHelpFormatter
    flags = argparse.ArgumentParser(description=__doc__, formatter_class=formatter)
    commands = flags.add_subparsers(required=True, dest="command")
    completions = commands.add_parser("masks", help="completions under many kinds of masks")
    completions.add_argument("--model", required=True, help="a model of the package, or a workdir")
    page = commands.add_parser("page", help="web/index.html with a half-hidden image")
    page.add_argument("--model", required=True, help="a bundled model")
    curves = commands.add_parser("curves", help="validations of several runs")
    curves.add_argument("logs", nargs="+", help="names in docs/logs/curves.jsonl, or workdirs")
    curves.add_argument("--unit", choices=UNITS, default="nats", help="default: %(default)s")
    for command in (completions, page, curves):
        command.add_argument("--out", required=True, type=Path)
    data_flags(flags)
    options = flags.parse_args()
    if options.command == "masks":
        draw_masks(options.model, options.data_name, options.data_dir, options.out)
    elif options.command == "page":
        draw_page(options.model, options.out)
    else:
        draw_curves(options.logs, options.unit, options.out)


if __name__ == "__main__":
    main()
