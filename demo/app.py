"""A page to play with a trained model in the browser.

python demo/app.py --model=mnist
python demo/app.py --workdir=runs/mnist --port=7861 --no_browser
"""

import argparse
import base64
import dataclasses
import html
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageOps
from starlette.middleware import Middleware, trustedhost

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax import model as models
from pixel_rnn_jax.cli import flags
from pixel_rnn_jax.data import pictures
from pixel_rnn_jax.system import files

TEST_IMAGES, CANVAS = 100, 320
CSS = """
figure img { width: min(100%, 560px); max-height: 420px; object-fit: contain }
figure img, .gallery-item img { image-rendering: pixelated }
.gallery-item, .gallery-item * { width: 44px; height: 44px; border-radius: 0 }
"""
INTRODUCTION = "The model draws each pixel by a probability that depends on all pixels before it."
DRAW = """Below temperature 1 the model draws what is likely more often, above 1 what is unlikely.
Nats are -log p(image): with one nat more, an image is 2.7 times less probable."""
PARTICLES = """Particles are attempts side by side: wherever pixels are known, attempts that fit
them are copied and others dropped. An effective sample size near 1 asks for more."""


def figure(content: bytes, alt: str, name: str, text: str) -> str:
    """Returns the HTML of a picture with its description, a text, and a link that saves it."""
    url = f"data:image/{name[-3:]};base64,{base64.b64encode(content).decode()}"
    link = f'<a href="{url}" download="{name}">Save {name}</a>'
    caption = f"<figcaption>{html.escape(text)} {link}</figcaption>"
    return f'<figure><img src="{url}" alt="{html.escape(alt)}">{caption}</figure>'


class Play:
    """What the tabs do with a model.

    `images` `[N + 1, H, W, C]` are to choose from, the last blank; `nats` `[N]` and `condition`,
    or None, are theirs. Strokes may begin in a margin of `margin` pixels around an image.
    """

    def __init__(self, source: Any):
        self.name, self.source, count = Path(source).name, "test images", TEST_IMAGES
        self.model, condition = prnn.load(source), None
        self.kind, self.size = self.model.config.condition
        if source in files.bundled_names():
            images = np.load(files.BUNDLED / source / "slice.npz")["images"]
        elif Path(source).is_dir():
            images, condition, _ = prnn.read_images(source)
            condition = None if condition is None else condition[:count]
        else:
            self.source = "images that the model drew"
            condition = np.arange(count) % self.size if self.kind == "class" else None
            images = np.asarray(self.model.sample(jax.random.key(1), count, condition))
        self.condition, self.margin = condition, 1 + max(images.shape[1:3]) // 12
        self.nats = -np.asarray(self.model.log_prob(images[:count], condition))
        self.images = np.concatenate([images[:count], np.zeros_like(images[:1])])

    def conditions(self, given: Any, count: int) -> Any:
        """Returns a class, or `count` times the numbers of a vector or the .npy file of a map."""
        if self.kind in ("", "class"):
            return given
        if not given:
            raise prnn.UserError("give the condition first")
        with files.error_context(given):
            vector = self.kind == "vector"
            value = np.array(given.split(",") if vector else files.load_arrays(given), float)
        return np.broadcast_to(value, (count, *value.shape))

    def given(self, number: int, before: Any) -> Any:
        """Returns the class or the vector of an image as `conditions` takes it, else `before`."""
        if self.condition is None or number < 0 or self.kind == "map":
            return before
        value, names = self.condition[number], self.model.class_names or range(self.size)
        return names[value] if self.kind == "class" else ", ".join(map(str, value))

    def upload(self, path: str, before: Any) -> tuple[np.ndarray, Any, str]:
        """Returns the first image of a file, the class that is found or `before`, and a remark."""
        none: Any = dict(num_classes=0, condition_vector=0, condition_map=0)
        config = dataclasses.replace(self.model.config, **none)
        own, remark = dataclasses.replace(self.model.pixel_rnn, config=config), ""
        try:
            image = data.open_images(path, None, own).batch(np.arange(1)).images[0]
        except prnn.UserError:
            if path.endswith((".npy", ".npz")) or not self.model.levels:
                raise
            height, width, channels = self.model.image_shape
            with files.error_context(path), Image.open(path, formats=files.FORMATS) as file:
                sheet = ImageOps.exif_transpose(file).convert("L" if channels == 1 else "RGB")
            small = np.atleast_3d(
                np.asarray(ImageOps.fit(sheet, (width, height), Image.Resampling.BOX), float)
            )
            image = np.round(small * ((self.model.levels - 1) / 255)).astype(self.images.dtype)
            remark = f"The picture was cut and scaled to {width}x{height}. "
        if self.kind == "class":
            before = self.model.classify(image[None]).tolist()[0]
            remark += f"The class found is {before}."
        return image, before, remark

    def words(self, nats: Any) -> str:
        """Returns a mean of nats in words."""
        mean, n = float(np.mean(nats)), self.model.pixel_rnn.num_values
        bits = f", {models.bits_per_dim(mean, n):.4f} bits/dim" if self.model.levels else ""
        return f"{mean:.2f} nats{bits}"

    def grid(self, images: Any, columns: int | None = None) -> np.ndarray:
        """Returns one picture of images."""
        return pictures.grid(*pictures.as_levels(images, self.model.levels), columns)

    def canvas(self, image: np.ndarray, margin: int = 0) -> np.ndarray:
        """Returns the RGB picture of an image, or of its first channel, in a margin of pixels."""
        image = image if image.shape[-1] in (1, 3, 4) else image[..., :1]
        factor = max(1, CANVAS // max(image.shape[:2]))
        picture = Image.fromarray(self.grid(image[None])).convert("RGB")
        picture = picture.resize(np.multiply(image.shape[1::-1], factor), Image.Resampling.NEAREST)
        return np.asarray(ImageOps.expand(picture, margin * factor, pictures.GROUND))

    def painted(self, layers: Any) -> np.ndarray:
        """Returns which pixels are known, `[H, W]`: those that RGBA layers leave bare."""
        known, m = np.ones(self.model.image_shape[:2], bool), self.margin
        size = known.shape[1] + 2 * m, known.shape[0] + 2 * m
        for layer in layers:
            paint = Image.fromarray(layer).getchannel("A").resize(size, Image.Resampling.BOX)
            known &= np.asarray(paint)[m:-m, m:-m] < 128
        return known

    def draw(self, count: int, temperature: float, seed: int, given: Any) -> str:
        """Draws images."""
        condition, key = self.conditions(given, count), jax.random.key(seed or 0)
        images = self.model.sample(key, count, condition, temperature=temperature)
        nats, content = -self.model.log_prob(images, condition), pictures.png(self.grid(images))
        return figure(content, "Drawn images", "samples.png", f"On average {self.words(nats)}.")

    def complete(
        self, image: Any, editor: Any, count: int, particles: int, seed: int, given: Any
    ) -> str:
        """Completes a painted image several times, side by side."""
        known = self.painted((editor or {}).get("layers") or ())
        if known.all():
            raise prnn.UserError("paint something first: the model completes what is painted")
        images, condition = np.stack([image] * count), self.conditions(given, count)
        known = np.broadcast_to(known[..., None], image.shape)
        key = jax.random.key(seed or 0)
        result = self.model.complete(key, images, known, condition, particles=particles)
        evidence = ", ".join(f"{value:.2f}" for value in np.asarray(result.log_evidence))
        size = result.effective_sample_size.min()
        text = f"{known.sum()} known values of log-probability {evidence} nats; "
        text += f"effective sample size at least {size:.1f} of {particles}."
        content = pictures.png(self.grid(result.images, columns=4))
        return figure(content, "Completions", "completions.png", text)

    def surprise(self, image: Any, given: Any) -> str:
        """Shows the nats of each pixel, and where the image stands among the others."""
        condition = self.conditions(given, 1)
        terms = -np.asarray(self.model.log_prob(image[None], condition, per_value=True))
        shown, levels = pictures.as_levels(image[None], self.model.levels)
        heat, black, white = pictures.pixel_map(shown, terms.sum(-1), levels)
        fewer = (self.nats < terms.sum() - 1e-3).sum()  # More than rounding.
        text = f"{self.words(terms.sum())}; {fewer} of {len(self.nats)} {self.source} have fewer. "
        text += f"In the map black is {black:.2f} nats and white {white:.2f}."
        return figure(pictures.png(heat), "An image and its heat map", "surprise.png", text)


def page(play: Play) -> Any:
    """Returns the page."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr

    def on(event: Any, function: Any, inputs: Any, outputs: Any, quick: bool = False) -> None:
        # Gradio's own iterator of a bar would never end in the thread of the codec.
        def call(progress: Any = gr.Progress(), *values: Any) -> Any:  # noqa: B008
            progress(0, desc="Computing. The first time it compiles, which takes longer")
            try:
                return function(*values)
            except Exception as error:  # Without the folder of an upload, and the name of no split.
                hidden = rf"{re.escape(tempfile.gettempdir())}\S*/| of split 'all'"
                text = html.escape(re.sub(hidden, "", str(error) or repr(error)))
                raise gr.Error(text, print_exception=False) from error

        options = dict(concurrency_limit=1, concurrency_id=None if quick else "model")
        options |= dict(show_progress="hidden" if quick else "full", show_progress_on=outputs[0])
        event(call, inputs, outputs, api_name=function.__name__, **options)

    def chooser(view: Any, margin: int = 0) -> Any:
        """Returns the state that holds the image which is chosen; `view` shows it."""

        def show(chosen: np.ndarray, found: Any, remark: str = "") -> Any:
            return play.canvas(chosen, margin), chosen, found, remark

        def choose(number: int, before: Any) -> Any:
            return show(play.images[number - 1], play.given(number - 1, before))

        def upload(path: str, before: Any) -> Any:
            return show(*play.upload(path, before))

        thumbnails = gr.Dataset(
            label=f"Blank, or one of the {play.source}",
            components=[gr.Image(render=False)],
            samples=[[play.canvas(play.images[i - 1])] for i in range(len(play.images))],
            samples_per_page=22,
            type="index",
        )
        button = gr.UploadButton("Upload a picture of your own")
        outputs = [view.render(), gr.State(play.images[0]), given, gr.Markdown()]
        on(thumbnails.click, choose, [thumbnails, given], outputs, quick=True)
        on(button.upload, upload, [button, given], outputs, quick=True)
        return outputs[1]

    def column(text: str = "") -> Any:
        with gr.Column(min_width=460) as result:
            gr.Markdown(text)
        return result

    with gr.Blocks(title=f"{play.name}, pixel-rnn-jax", analytics_enabled=False) as blocks:
        gr.Markdown(f"# {play.name}\n{INTRODUCTION}\n\n{play.model!r}")
        given: Any = gr.State(None)
        seed: Any = dict(label="Seed", precision=0, minimum=0, maximum=2**31 - 1)
        if play.kind == "class":
            choices = [*(play.model.class_names or range(play.size))]
            given = gr.Dropdown(choices, value=play.given(0, choices[0]), label="Class")
        elif play.kind == "vector":
            given = gr.Textbox(play.given(0, ""), label=f"{play.size} numbers, with commas")
        elif play.kind == "map":
            given = gr.File(label="Condition: an .npy file, [H, W, D]")
        with gr.Tab("Draw"), gr.Row():
            with column(DRAW):
                count = gr.Slider(1, 64, 16, step=1, label="Images")
                heat = gr.Slider(0, 2, 1, label="Temperature")
                inputs = [count, heat, gr.Number(0, **seed), given]
            with column():
                button = gr.Button("Draw", variant="primary")
                on(button.click, play.draw, inputs, [gr.HTML()])
        with gr.Tab("Complete"), gr.Row():
            with column("Paint what is unknown. The pale frame is there to begin strokes in."):
                canvas = play.canvas(play.images[0], play.margin)
                brush = gr.Brush(30, [f"rgb{pictures.UNKNOWN}"], color_mode="fixed")
                bare: Any = dict(sources=(), transforms=(), layers=False, render=False)
                size: Any = dict(canvas_size=canvas.shape[1::-1], fixed_canvas=True)
                editor = gr.ImageEditor(canvas, label="Image", brush=brush, **size, **bare)
                image = chooser(editor, play.margin)
            with column(PARTICLES):
                count = gr.Slider(1, 16, 4, step=1, label="Completions")
                particles = gr.Slider(1, 256, 64, step=1, label="Particles of each")
                inputs = [image, editor, count, particles, gr.Number(0, **seed), given]
                button = gr.Button("Complete", variant="primary")
                on(button.click, play.complete, inputs, [gr.HTML()])
        with gr.Tab("Surprise"), gr.Row():
            with column("Which pixels of an image surprise the model, and by how many nats?"):
                canvas = play.canvas(play.images[0])
                view = gr.Image(canvas, label="Image", interactive=False, render=False)
                image = chooser(view)
            with column():
                button = gr.Button("Show nats", variant="primary")
                on(button.click, play.surprise, [image, given], [gr.HTML()])
    return blocks


def main(arguments: list[str]) -> None:
    """Opens the page on 127.0.0.1."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    flags.model_flags(parser)
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    parser.add_argument("--no_browser", action="store_true", help="open no browser")
    options = parser.parse_args(arguments or ["--model=mnist"])
    Image.MAX_IMAGE_PIXELS = 2**24  # Painted or uploaded. Pillow refuses what is twice as large.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir
        blocks = page(Play(options.source))
        hosts = ["127.0.0.1", "localhost", os.environ.get("SPACE_HOST", "")]
        middleware = [Middleware(trustedhost.TrustedHostMiddleware, allowed_hosts=hosts)]
        private: Any = dict(share=False, quiet=True)  # Else it tells how to make the page public.
        private |= dict(app_kwargs=dict(middleware=middleware), max_file_size="16mb")
        shown: Any = dict(css=CSS, show_error=True, footer_links=[])
        local: Any = dict(server_port=options.port, inbrowser=not options.no_browser)
        blocks.queue(max_size=20).launch(prevent_thread_lock=True, **private, **shown, **local)
        print(f"The page is at {blocks.local_url}", flush=True)
        blocks.block_thread()


if __name__ == "__main__":
    main(sys.argv[1:])
