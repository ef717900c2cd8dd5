"""A page to play with a trained model in the browser.

python demo/app.py --model=mnist
python demo/app.py --workdir=runs/mnist --port=7861 --no_browser
"""

import argparse
import base64
import dataclasses
import html
import io
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import jax
import matplotlib.figure
import numpy as np
from PIL import Image

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax import model as models
from pixel_rnn_jax.cli import flags
from pixel_rnn_jax.data import pictures
from pixel_rnn_jax.system import files

TEST_IMAGES, CANVAS = 100, 320
MOST_PIXELS = 2**22
"""The limit for a picture that a visitor paints or uploads."""


def figure(content: bytes, alt: str, name: str, text: str) -> str:
    """Returns the HTML of a picture with its description, a text, and a link that saves it."""
    url = f"data:image/{name[-3:]};base64,{base64.b64encode(content).decode()}"
    style = "width: min(100%, 560px); image-rendering: pixelated"
    return (
        f'<figure><img src="{url}" alt="{html.escape(alt)}" style="{style}"><figcaption>'
        f'{html.escape(text)} <a href="{url}" download="{name}">Save {name}</a></figcaption>'
        "</figure>"
    )


def film_of(picture: Any, order: np.ndarray, shape: Any, frames: int = 100) -> bytes:
    """Returns a GIF of a picture of one image of `shape`, whose pixels appear one after another.

    `order` `[T, 2]` are their rows and columns; what is not there yet is blue.
    """
    whole = Image.fromarray(picture).convert("RGB")
    ground, images = Image.new("RGB", whole.size, pictures.UNKNOWN), []
    for count in np.linspace(0, len(order), frames).astype(int):
        there = np.zeros(shape, np.uint8)
        there[tuple(order[:count].T)] = 255
        mask = Image.fromarray(there).resize(whole.size, Image.Resampling.NEAREST)
        images.append(Image.composite(whole, ground, mask))
    file, times = io.BytesIO(), [40] * (frames - 1) + [2000]  # In ms.
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0)
    return file.getvalue()


class OwnPage:
    """Refuses what other web pages send: the Host and the Origin of a request must be this page."""

    def __init__(self, app: Any):
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answers a request, or passes it on."""
        from starlette.responses import PlainTextResponse

        headers = {name: value.decode("latin-1") for name, value in scope.get("headers", ())}
        host, origin = headers.get(b"host", ""), headers.get(b"origin")
        hosts = "127.0.0.1", "localhost", os.environ.get("SPACE_HOST")
        other = urlsplit(f"//{host}").hostname not in hosts
        if scope["type"] == "http" and (other or urlsplit(origin or f"//{host}").netloc != host):
            await PlainTextResponse("another host or origin", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Play:
    """What the tabs do with a model.

    `images` `[N + 1, H, W, C]` are to choose from, the last blank. `nats` `[N]` and `condition`,
    or None, are theirs.
    """

    def __init__(self, source: Any):
        self.name, self.source, count = Path(source).name, "test images", TEST_IMAGES
        self.model, condition = prnn.load(source), None
        if source in files.bundled_names():
            images = np.load(files.BUNDLED / source / "slice.npz")["images"]
        elif Path(source).is_dir():
            images, condition, _ = prnn.read_images(source)
            condition = None if condition is None else condition[:count]
        else:
            self.source, classes = "images that the model drew", self.model.config.condition.classes
            condition = np.arange(count) % classes if classes else None
            images = np.asarray(self.model.sample(jax.random.key(1), count, condition))
        self.condition = condition
        self.nats = -np.asarray(self.model.log_prob(images[:count], condition))
        self.images = np.concatenate([images[:count], np.zeros_like(images[:1])])

    def conditions(self, given: Any, count: int) -> np.ndarray | None:
        """Returns `count` times a class, the numbers of a vector, or the .npy file of a map."""
        kind = self.model.config.condition.kind
        if kind == "class":
            return np.full(count, given)
        if not kind:
            return None
        if not given:
            raise prnn.UserError("give the condition first")
        if kind == "map":
            with files.error_context(given):
                value = np.array(files.load_arrays(given), float)
        else:
            value = np.array(given.split(","), float)
        return np.broadcast_to(value, (count, *value.shape))

    def given(self, number: int, before: Any) -> Any:
        """Returns the class or the vector of an image as `conditions` takes it, else `before`."""
        (kind, size), names = self.model.config.condition, self.model.class_names
        if self.condition is None or number == len(self.nats) or kind == "map":
            return before
        value = self.condition[number]
        if kind == "class":
            return (names or range(size))[value]
        return ", ".join(map(str, value))

    def read(self, paths: Any) -> np.ndarray:
        """Returns the images of files `[N, H, W, C]`, read as by `--images`."""
        config = dataclasses.replace(
            self.model.config, num_classes=0, condition_vector=0, condition_map=0
        )
        plain = dataclasses.replace(self.model.pixel_rnn, config=config)
        splits = [data.open_images(path, None, plain) for path in paths or ()]
        if not splits:
            raise prnn.UserError("choose a file first")
        return np.concatenate([split.batch(np.arange(len(split))).images for split in splits])

    def words(self, nats: Any) -> str:
        """Returns a mean of nats in words."""
        mean, n = float(np.mean(nats)), self.model.pixel_rnn.num_values
        bits = f", {models.bits_per_dim(mean, n):.4f} bits/dim" if self.model.levels else ""
        return f"{mean:.2f} nats{bits}"

    def grid(self, images: Any, columns: int | None = None) -> np.ndarray:
        """Returns one picture of images."""
        return pictures.grid(*pictures.as_levels(images, self.model.levels), columns)

    def canvas(self, image: np.ndarray) -> np.ndarray:
        """Returns the RGB picture of an image `[H, W, C]`, or of its first channel, to paint on."""
        image = image if image.shape[-1] in (1, 3, 4) else image[..., :1]
        picture = Image.fromarray(self.grid(image[None])).convert("RGB")
        factor = max(1, CANVAS // max(picture.size))
        return np.asarray(picture).repeat(factor, axis=0).repeat(factor, axis=1)

    def painted(self, image: np.ndarray, layers: Any) -> tuple[np.ndarray, np.ndarray]:
        """Returns an image `[H, W, C]` with what was painted on it, and which values are known.

        `layers` are RGBA pictures: blue is unknown, other colours are values.
        """
        image, known = image.copy(), np.ones(image.shape, bool)
        for layer in layers:
            paint = Image.fromarray(layer).convert("RGBa")
            small = np.asarray(paint.resize(image.shape[1::-1], Image.Resampling.BOX), float)
            painted, colour = small[..., 3] > 127, small[..., :3] / np.maximum(small[..., 3:], 1)
            blue = painted & (abs(255 * colour - pictures.UNKNOWN).max(-1) < 48)
            drawn = painted & ~blue
            known[blue] = False
            if drawn.any():
                if image.shape[-1] not in (1, 3) or not self.model.pixel_rnn.likelihood.discrete:
                    raise prnn.UserError("values can be painted in levels of grey or RGB alone")
                colour = colour if image.shape[-1] == 3 else colour.mean(-1, keepdims=True)
                image[drawn] = np.round(colour[drawn] * (self.model.levels - 1))
        return image, known

    def draw(self, count: int, temperature: float, seed: int, given: Any) -> tuple[str, str]:
        """Draws images, and shows the first in the order in which its values were drawn."""
        condition, key = self.conditions(given, count), jax.random.key(seed or 0)
        images = self.model.sample(key, count, condition, temperature=temperature)
        text = f"On average {self.words(-self.model.log_prob(images, condition))}."
        scales = self.model.pixel_rnn.scales
        order = np.concatenate([scale.stride * np.argwhere(~scale.copied) for scale in scales])
        first = self.canvas(np.asarray(images[0]))
        film = film_of(first, order, self.model.image_shape[:2])
        samples, alt = pictures.png(self.grid(images)), f"{count} images drawn by the model"
        last = figure(film, "The first image, value by value", "film.gif", "The first, as drawn.")
        return figure(samples, alt, "samples.png", text), last

    def complete(
        self, image: Any, editor: Any, count: int, particles: int, seed: int, given: Any
    ) -> str:
        """Completes a painted image several times, side by side."""
        image, known = self.painted(image, (editor or {}).get("layers") or ())
        images, condition = np.stack([image] * count), self.conditions(given, count)
        key = jax.random.key(seed or 0)
        result = self.model.complete(key, images, known, condition, particles=particles)
        evidence = ", ".join(f"{value:.2f}" for value in np.asarray(result.log_evidence))
        size = f"effective sample size at least {result.effective_sample_size.min():.1f}"
        text = f"{known.sum()} known values; log-evidence {evidence} nats; {size} of {particles}."
        alt, content = f"{count} completions", pictures.png(self.grid(result.images, columns=4))
        return figure(content, alt, "completions.png", text)

    def surprise(self, image: Any, given: Any) -> tuple[str, str]:
        """Shows the nats of each pixel, and where the image stands among the others."""
        condition = self.conditions(given, 1)
        terms = -np.asarray(self.model.log_prob(image[None], condition, per_value=True))
        shown, levels = pictures.as_levels(image[None], self.model.levels)
        heat, black, white = pictures.pixel_map(shown, terms.sum(-1), levels)
        nats, plot, file = terms.sum(), matplotlib.figure.Figure((5, 2)), io.BytesIO()
        axes = plot.subplots()
        axes.hist(self.nats, bins=30, color="lightsteelblue")
        axes.axvline(nats, color="firebrick")
        axes.set(xlabel="nats of an image", ylabel="images")
        plot.savefig(file, dpi=150, bbox_inches="tight")
        text = f"{self.words(nats)}; black is {black:.2f} nats of a pixel, white {white:.2f}."
        fewer = (self.nats < nats - 1e-3).sum()  # More than rounding.
        place = f"{fewer} of {len(self.nats)} {self.source} have fewer nats."
        heat_map = figure(pictures.png(heat), "An image and its heat map", "surprise.png", text)
        return heat_map, figure(file.getvalue(), f"Histogram. {place}", "histogram.png", place)

    def compress(self, paths: Any, given: Any) -> tuple[str, str, str]:
        """Returns a compressed file of images, its size beside others, and what it holds."""
        images, levels = self.read(paths), self.model.levels
        content = self.model.compress(images, self.conditions(given, len(images)))
        text = f".prnn {len(content):,} bytes, {8 * len(content) / images.size:.4f} bits/dim"
        folder, webp = Path(tempfile.mkdtemp()), io.BytesIO()
        (folder / "images.prnn").write_bytes(content)
        if levels <= 256 and images.shape[-1] in (1, 3):
            pictures.write_images(images, levels, str(folder / "png"))
            files = [*(folder / "png").iterdir()]
            for file in files:
                Image.open(file).convert("RGB").save(webp, "WEBP", lossless=True)
            png = sum(file.stat().st_size for file in files)
            text += f"; PNG {png:,} bytes; WebP lossless {webp.tell():,} bytes"
        return str(folder / "images.prnn"), text, self.decompress(folder / "images.prnn")[0]

    def decompress(self, path: Any) -> tuple[str, str]:
        """Returns the images of a compressed file, to look at and as an .npz file."""
        if not path:
            raise prnn.UserError("choose a file first")
        images = np.asarray(self.model.decompress(Path(path).read_bytes()))
        pictures.write_images(images, self.model.levels, out := f"{tempfile.mkdtemp()}/images.npz")
        content, text = pictures.png(self.grid(images[:TEST_IMAGES])), f"{len(images)} images."
        return figure(content, f"{text} Read from the file.", "images.png", text), out


def page(play: Play) -> Any:
    """Returns the page."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    kind, numbers = play.model.config.condition

    def on(event: Any, function: Any, inputs: list[Any], outputs: list[Any]) -> None:
        # Gradio's own iterator of a bar would never end in the thread of the codec.
        def call(progress: Any = gr.Progress(), *values: Any) -> Any:  # noqa: B008
            progress(0, desc="Computing. The first time it compiles, which takes longer")
            try:
                return function(*values)
            except Exception as error:
                text = html.escape(str(error) or repr(error))
                raise gr.Error(text, print_exception=False) from error

        name = function.__name__
        event(call, inputs, outputs, api_name=name, concurrency_id="model", concurrency_limit=1)

    def chooser(view: Any) -> Any:
        """Returns the state that holds the image which is chosen; `view` shows it."""
        image = gr.State(play.images[0])

        def choose(number: int, before: Any) -> Any:
            chosen = play.images[number]
            return chosen, play.canvas(chosen), play.given(number, before)

        def show(path: Any) -> Any:
            chosen = play.read([path])[0]
            return chosen, play.canvas(chosen)

        with gr.Row():
            label, last = f"One of the {play.source}, or blank", len(play.images) - 1
            number = gr.Slider(0, last, 0, step=1, label=label)
            upload = gr.File(label="Or an image of your own", height=140)
        view.render()
        on(number.change, choose, [number, given], [image, view, given])
        on(upload.upload, show, [upload], [image, view])
        return image

    with gr.Blocks(title=f"{play.name}, pixel-rnn-jax", analytics_enabled=False) as blocks:
        gr.Markdown(f"# {play.name}\n{play.model!r}")
        given: Any = gr.State(None)
        if kind == "class":
            choices = [*(play.model.class_names or range(numbers))]
            given = gr.Dropdown(choices, value=play.given(0, choices[0]), label="Class")
        elif kind == "vector":
            label = f"Condition: {numbers} numbers, with commas"
            given = gr.Textbox(play.given(0, ""), label=label)
        elif kind == "map":
            given = gr.File(label="Condition: an .npy file, [H, W, D]")
        seed = gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label="Seed")
        with gr.Tab("Draw"):
            with gr.Row():
                count = gr.Slider(1, 64, 16, step=1, label="Images")
                temperature = gr.Slider(0, 2, 1, label="Temperature")
            button = gr.Button("Draw", variant="primary")
            on(button.click, play.draw, [count, temperature, seed, given], [gr.HTML(), gr.HTML()])
        with gr.Tab("Complete"):
            gr.Markdown("Paint blue what is unknown. Other colours draw values.")
            canvas, colours = play.canvas(play.images[0]), ["white", "black"]
            brush = gr.Brush(40, [f"rgb{pictures.UNKNOWN}", *colours])
            bare: Any = dict(sources=(), transforms=(), layers=False, render=False)
            size = canvas.shape[1::-1]
            editor = gr.ImageEditor(
                canvas, label="Image", brush=brush, canvas_size=size, fixed_canvas=True, **bare
            )
            image = chooser(editor)
            with gr.Row():
                count = gr.Slider(1, 16, 4, step=1, label="Completions")
                particles = gr.Slider(1, 256, 64, step=1, label="Particles of each")
            button = gr.Button("Complete", variant="primary")
            inputs = [image, editor, count, particles, seed, given]
            on(button.click, play.complete, inputs, [gr.HTML()])
        with gr.Tab("Surprise"):
            image = chooser(gr.Image(canvas, label="Image", interactive=False, render=False))
            button = gr.Button("Show nats", variant="primary")
            on(button.click, play.surprise, [image, given], [gr.HTML(), gr.HTML()])
        with gr.Tab("Compress"):
            files = gr.File(label="Images", file_count="multiple")
            button = gr.Button("Compress", variant="primary")
            outputs = [gr.File(label="Compressed file"), gr.Textbox(label="Size"), gr.HTML()]
            on(button.click, play.compress, [files, given], outputs)
            file = gr.File(label="A compressed file", file_types=[".prnn"])
            outputs = [gr.HTML(), gr.File(label="Its images")]
            on(gr.Button("Decompress").click, play.decompress, [file], outputs)
    return blocks


def launch(blocks: Any, **options: Any) -> None:
    """Opens a page on 127.0.0.1."""
    from starlette.middleware import Middleware

    blocks.queue(max_size=20).launch(
        share=False,
        max_file_size="16mb",
        footer_links=[],
        show_error=True,
        app_kwargs=dict(middleware=[Middleware(OwnPage)]),
        **options,
    )


def main(arguments: list[str]) -> None:
    """Opens the page on 127.0.0.1."""
    parser = argparse.ArgumentParser(description=__doc__)
    flags.model_flags(parser)
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    parser.add_argument("--no_browser", action="store_true", help="open no browser")
    options = parser.parse_args(arguments or ["--model=mnist"])
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses what is twice as large.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir
        blocks, browser = page(Play(options.source)), not options.no_browser
        launch(blocks, server_port=options.port, inbrowser=browser)


if __name__ == "__main__":
    main(sys.argv[1:])
