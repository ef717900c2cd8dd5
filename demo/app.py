"""A page to play with a trained model in the browser.

python demo/app.py --model=mnist
python demo/app.py --workdir=runs/mnist --port=7861 --no_browser
"""

import argparse
import html
import os
import re
import signal
import sys
import tempfile
from typing import Any

from PIL import Image
from play import MOST_PIXELS, Play

from pixel_rnn_jax.cli import flags
from pixel_rnn_jax.data import pictures

CSS = """
figure img { width: min(100%, 560px); max-height: 420px; object-fit: contain }
figure img, .gallery-item img { image-rendering: pixelated }
.gallery-item, .gallery-item * { width: 44px; height: 44px; border-radius: 0 }
"""
ABOUT = {
    "": """This model has learned how probable every image is. It draws an image pixel by pixel, by
        the probabilities that it computes from all pixels before.""",
    "Draw": """At temperature 1 the model draws by its probabilities, below 1 what is likely more
        often, above 1 what is unlikely. Nats measure surprise, -log p(image): with one nat more, an
        image is 2.7 times less probable.""",
    "Complete": """Paint what the model shall complete. The pale frame is there to begin strokes
        in.""",
    "Particles": """Particles are attempts side by side: wherever pixels are known, attempts that
        fit them are copied and others dropped. An effective sample size near 1 asks for more.""",
    "Surprise": "How much does an image surprise the model, in nats, and at which of its pixels?",
    "Guess": "Which of these images surprises the model most? Guess, then see their nats.",
    "Compress": """The more probable an image, the fewer bits it takes: about -log2 p(image). No
        value is lost. If the model has classes, the class of each image is found.""",
}


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

    def seed() -> Any:
        label = "Seed: the same number draws the same images"
        return gr.Number(0, precision=0, minimum=0, maximum=2**31 - 1, label=label)

    def chooser(view: Any, margin: int = 0) -> Any:
        """Returns the state that holds the image which is chosen; `view` shows it."""

        def choose(number: int, before: Any) -> Any:
            chosen = play.images[number - 1]
            return play.canvas(chosen, margin), chosen, play.given(number - 1, before), ""

        def show(path: Any, before: Any) -> Any:
            chosen, found, remark = play.upload(path, before)
            return play.canvas(chosen, margin), chosen, found, remark

        thumbnails = gr.Dataset(
            label=f"Blank, or one of the {play.source}",
            components=[gr.Image(render=False)],
            samples=[[play.canvas(play.images[i - 1])] for i in range(len(play.images))],
            samples_per_page=22,
            type="index",
        )
        upload = gr.UploadButton("Upload a picture of your own")
        outputs = [view.render(), gr.State(play.images[0]), given, gr.Markdown()]
        on(thumbnails.click, choose, [thumbnails, given], outputs, quick=True)
        on(upload.upload, show, [upload, given], outputs, quick=True)
        return outputs[1]

    def column(text: str = "") -> Any:
        with gr.Column(min_width=460) as result:
            gr.Markdown(text)
        return result

    with gr.Blocks(title=f"{play.name}, pixel-rnn-jax", analytics_enabled=False) as blocks:
        gr.Markdown(f"# {play.name}\n{ABOUT['']}\n\n{play.model!r}")
        given: Any = gr.State(None)
        if play.kind == "class":
            choices = [*(play.model.class_names or range(play.size))]
            given = gr.Dropdown(choices, value=play.given(0, choices[0]), label="Class")
        elif play.kind == "vector":
            label = f"Condition: {play.size} numbers, with commas"
            given = gr.Textbox(play.given(0, ""), label=label)
        elif play.kind == "map":
            given = gr.File(label="Condition: an .npy file, [H, W, D]")
        with gr.Tab("Draw"), gr.Row():
            with column(ABOUT["Draw"]):
                count = gr.Slider(1, 64, 16, step=1, label="Images")
                inputs = [count, gr.Slider(0, 2, 1, label="Temperature"), seed(), given]
                button = gr.Button("Draw", variant="primary")
            with column(), gr.Row():
                on(button.click, play.draw, inputs, [gr.HTML(), gr.HTML()])
        with gr.Tab("Complete"), gr.Row():
            with column(ABOUT["Complete"]):
                canvas = play.canvas(play.images[0], play.margin)
                brush = gr.Brush(30, [f"rgb{pictures.UNKNOWN}"], color_mode="fixed")
                bare: Any = dict(sources=(), transforms=(), layers=False, render=False)
                size: Any = dict(canvas_size=canvas.shape[1::-1], fixed_canvas=True)
                editor = gr.ImageEditor(canvas, label="Image", brush=brush, **size, **bare)
                image = chooser(editor, play.margin)
            with column(ABOUT["Particles"]):
                count = gr.Slider(1, 16, 4, step=1, label="Completions")
                particles = gr.Slider(1, 256, 64, step=1, label="Particles of each")
                inputs = [image, editor, count, particles, seed(), given]
                button = gr.Button("Complete", variant="primary")
                on(button.click, play.complete, inputs, [gr.HTML()])
        with gr.Tab("Surprise"), gr.Row():
            with column(ABOUT["Surprise"]):
                canvas = play.canvas(play.images[0])
                view = gr.Image(canvas, label="Image", interactive=False, render=False)
                image = chooser(view)
                button = gr.Button("Show nats", variant="primary")
            with column():
                on(button.click, play.surprise, [image, given], [gr.HTML()])
        with gr.Tab("Guess"), gr.Row():
            with column(ABOUT["Guess"]):
                turn, four = gr.State(0), gr.HTML(play.guess(0, None))
            with column():
                numbers = [*range(1, 1 + min(4, len(play.nats)))]
                choice = gr.Radio(numbers, label="The most surprising, from the left")
                on(choice.input, play.guess, [turn, choice], [four], quick=True)
                others = gr.Button("Other images").click
                on(others, play.others, [turn], [four, turn, choice], quick=True)
        with gr.Tab("Compress"), gr.Row():
            with column(ABOUT["Compress"]):
                files = gr.File(label="Images", file_count="multiple", height=140)
                button = gr.Button("Compress", variant="primary")
            with column():
                outputs = [gr.File(label="Compressed file"), gr.HTML()]
                on(button.click, play.compress, [files, given], outputs)
    return blocks


def main(arguments: list[str]) -> None:
    """Opens the page on 127.0.0.1."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    flags.model_flags(parser)
    parser.add_argument("--port", type=int, help="default: the first that is free from 7860 on")
    parser.add_argument("--no_browser", action="store_true", help="open no browser")
    options = parser.parse_args(arguments or ["--model=mnist"])
    Image.MAX_IMAGE_PIXELS = MOST_PIXELS // 2  # Pillow refuses what is twice as large.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    with tempfile.TemporaryDirectory() as tempfile.tempdir:
        os.environ["GRADIO_TEMP_DIR"] = tempfile.tempdir
        blocks = page(Play(options.source))
        from starlette.middleware import Middleware
        from starlette.middleware.trustedhost import TrustedHostMiddleware

        hosts = ["127.0.0.1", "localhost", os.environ.get("SPACE_HOST", "")]
        blocks.queue(max_size=20).launch(
            server_port=options.port,
            inbrowser=not options.no_browser,
            share=False,
            max_file_size="16mb",
            footer_links=[],
            show_error=True,
            app_kwargs=dict(middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=hosts)]),
            css=CSS,
            quiet=True,  # It would tell how to make the page public.
            prevent_thread_lock=True,
        )
        print(f"The page is at {blocks.local_url}", flush=True)
        blocks.block_thread()


if __name__ == "__main__":
    main(sys.argv[1:])
