"""What the page does with a model: figures with words, as HTML."""

import base64
import dataclasses
import html
import io
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image, ImageOps

import pixel_rnn_jax as prnn
from pixel_rnn_jax import data
from pixel_rnn_jax import model as models
from pixel_rnn_jax.data import pictures
from pixel_rnn_jax.system import files

TEST_IMAGES, CANVAS = 100, 320
MOST_PIXELS = 2**25
"""The limit for a picture that a visitor paints or uploads."""


def figure(content: bytes, alt: str, name: str, text: str) -> str:
    """Returns the HTML of a picture with its description, a text, and a link that saves it."""
    url = f"data:image/{name[-3:]};base64,{base64.b64encode(content).decode()}"
    return (
        f'<figure><img src="{url}" alt="{html.escape(alt)}"><figcaption>{html.escape(text)} '
        f'<a href="{url}" download="{name}">Save {name}</a></figcaption></figure>'
    )


def film(picture: np.ndarray, order: np.ndarray) -> bytes:
    """Returns a GIF in which the pixels of an RGB picture appear by `order` `[H, W]`, from blue."""
    factor, frames = len(picture) // len(order), []
    order = order.repeat(factor, 0).repeat(factor, 1)[..., None]
    for count in np.linspace(0, order.max() + 1, 100):
        frame = np.where(order < count, picture, pictures.UNKNOWN)
        frames.append(Image.fromarray(frame.astype(np.uint8)))
    file, times = io.BytesIO(), [40] * 99 + [2000]  # In ms.
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return file.getvalue()


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
        if self.kind == "vector":
            value = np.array(given.split(","), float)
        else:
            with files.error_context(given):
                value = np.array(files.load_arrays(given), float)
        return np.broadcast_to(value, (count, *value.shape))

    def given(self, number: int, before: Any) -> Any:
        """Returns the class or the vector of an image as `conditions` takes it, else `before`."""
        if self.condition is None or number < 0 or self.kind == "map":
            return before
        value, names = self.condition[number], self.model.class_names or range(self.size)
        return names[value] if self.kind == "class" else ", ".join(map(str, value))

    def read(self, paths: Any) -> tuple[np.ndarray, str]:
        """Returns the images of files, read as by `--images` or scaled, and what was done."""
        if not paths:
            raise prnn.UserError("choose a file first")
        none: Any = dict(num_classes=0, condition_vector=0, condition_map=0)
        config, images, remarks = dataclasses.replace(self.model.config, **none), [], ""
        model = dataclasses.replace(self.model.pixel_rnn, config=config)
        for path in map(Path, paths):
            try:
                split = data.open_images(path, None, model)
                images.append(split.batch(np.arange(len(split))).images)
            except prnn.UserError:
                if path.suffix in (".npy", ".npz") or not self.model.levels:
                    raise
                image, remark = self.scaled(path)
                images.append(image[None])
                remarks += remark
        return np.concatenate(images), remarks

    def upload(self, path: Any, before: Any) -> tuple[np.ndarray, Any, str]:
        """Returns the first image of a file, the class that is found or `before`, and a remark."""
        images, remark = self.read([path])
        if self.kind == "class":
            before = self.model.classify(images[:1]).tolist()[0]
            remark += f"The class found is {before}."
        return images[0], before, remark

    def scaled(self, path: Path) -> tuple[np.ndarray, str]:
        """Returns any picture in the model's size and levels, and a sentence."""
        (height, width, channels), top = self.model.image_shape, self.model.levels - 1
        try:
            with Image.open(path, formats=files.FORMATS) as file:
                paint = ImageOps.exif_transpose(file).convert("RGBA")
        except Exception as error:
            kinds = f"{', '.join(files.FORMATS)} with at most {MOST_PIXELS:,} pixels"
            raise prnn.UserError(f"{path.name} is no picture of the kinds {kinds}") from error
        sheet = Image.alpha_composite(Image.new("RGBA", paint.size, "white"), paint)
        sheet = sheet.convert("L" if channels == 1 else "RGB")
        small = ImageOps.fit(sheet, (width, height), Image.Resampling.BOX)
        # Digits are bright on black, and ink on paper is not.
        black = channels == 1 and not np.median(self.images[:-1, [0, -1]])
        small = ImageOps.autocontrast(small) if black or top == 1 else small
        values = np.atleast_3d(np.asarray(small, float))
        swap = black and bool(np.median(values[[0, -1]]) > 127)
        values = np.round(abs(255 * swap - values) * (top / 255)).astype(self.images.dtype)
        also = ", light and dark swapped" * swap
        return values, f"{path.name} was cut and scaled to {width}x{height}{also}. "

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
        size = image.shape[1] * factor, image.shape[0] * factor
        picture = picture.resize(size, Image.Resampling.NEAREST)
        return np.asarray(ImageOps.expand(picture, margin * factor, pictures.GROUND))

    def painted(self, layers: Any) -> np.ndarray:
        """Returns which pixels are known, `[H, W]`: those that RGBA layers leave bare."""
        known, m = np.ones(self.model.image_shape[:2], bool), self.margin
        size = known.shape[1] + 2 * m, known.shape[0] + 2 * m
        for layer in layers:
            paint = Image.fromarray(layer).getchannel("A").resize(size, Image.Resampling.BOX)
            known &= np.asarray(paint)[m:-m, m:-m] < 128
        return known

    def draw(self, count: int, temperature: float, seed: int, given: Any) -> tuple[str, str]:
        """Draws images, and shows the first in the order in which its values were drawn."""
        condition, key = self.conditions(given, count), jax.random.key(seed or 0)
        images = self.model.sample(key, count, condition, temperature=temperature)
        nats, order = -self.model.log_prob(images, condition), np.empty(images.shape[1:3], int)
        scales = self.model.pixel_rnn.scales
        places = np.concatenate([scale.stride * np.argwhere(~scale.copied) for scale in scales])
        order[tuple(places.T)] = np.arange(order.size)
        content, alt = pictures.png(self.grid(images)), f"{count} images drawn by the model"
        samples = figure(content, alt, "samples.png", f"On average {self.words(nats)}.")
        content, alt = film(self.canvas(np.asarray(images[0])), order), "The first, pixel by pixel"
        return samples, figure(content, alt, "film.gif", "The first, pixel by pixel.")

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
        least = result.effective_sample_size.min()
        text = f"{known.sum()} known values of log-probability {evidence} nats; "
        text += f"effective sample size at least {least:.1f} of {particles}."
        alt, content = f"{count} completions", pictures.png(self.grid(result.images, columns=4))
        return figure(content, alt, "completions.png", text)

    def surprise(self, image: Any, given: Any) -> str:
        """Shows the nats of each pixel, and where the image stands among the others."""
        condition = self.conditions(given, 1)
        terms = -np.asarray(self.model.log_prob(image[None], condition, per_value=True))
        shown, levels = pictures.as_levels(image[None], self.model.levels)
        heat, black, white = pictures.pixel_map(shown, terms.sum(-1), levels)
        fewer = (self.nats < terms.sum() - 1e-3).sum()  # More than rounding.
        text = f"{self.words(terms.sum())}; {fewer} of {len(self.nats)} {self.source} have fewer. "
        text += "The map has the nats of each pixel, given the pixels before it: black is "
        text += f"{black:.2f}, as expected; white is {white:.2f}, the greatest surprise."
        return figure(pictures.png(heat), "An image and its heat map", "surprise.png", text)

    def guess(self, turn: int, choice: int | None) -> str:
        """Shows the four images of a turn, and their nats after a choice of one."""
        four = np.random.default_rng(turn).permutation(len(self.nats))[:4]
        nats, content = self.nats[four], pictures.png(self.grid(self.images[four], columns=4))
        text, most = "Their nats appear after your guess.", 1 + int(nats.argmax())
        if choice:
            verdict = "Right" if choice == most else "No"
            values = ", ".join(f"{x:.2f}" for x in nats)
            text = f"{verdict}: number {most} surprises it most. They have {values} nats."
        return figure(content, "Images side by side", "guess.png", text)

    def others(self, turn: int) -> tuple[str, int, None]:
        """Shows the images of the next turn."""
        return self.guess(turn + 1, None), turn + 1, None

    def compress(self, paths: Any, given: Any) -> tuple[str, str]:
        """Returns a compressed file of images, and what is read back from it."""
        images, remarks = self.read(paths)
        if self.kind == "class":
            condition = self.model.classify(images)
            found = zip(*np.unique(condition, return_counts=True), strict=True)
            parts = ", ".join(f"{count} of class {name}" for name, count in found)
            remarks += f"Found by the highest probability: {parts}."
        else:
            condition = self.conditions(given, len(images))
        content = self.model.compress(images, condition)
        (out := Path(tempfile.mkdtemp()) / "images.prnn").write_bytes(content)
        text = f"{len(content):,} bytes, {8 * len(content) / images.size:.4f} bits/dim. {remarks}"
        picture = pictures.png(self.grid(self.model.decompress(content)[:TEST_IMAGES]))
        return str(out), figure(picture, "The images in the file", "images.png", text.strip())
