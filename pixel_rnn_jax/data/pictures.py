"""Pictures of images: grids to look at, and files that keep every value."""

import io
import shutil
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image, ImageDraw, ImageFont

from pixel_rnn_jax.model.likelihoods import value_dtype
from pixel_rnn_jax.system.errors import UserError
from pixel_rnn_jax.system.files import atomic_write, read_image

# Smaller images are magnified to about HEIGHT pixels, in pictures of at most LARGEST pixels a side.
HEIGHT, LARGEST = 64, 2048
GREY = 128  # The level of the gaps of a grid.
UNKNOWN, GROUND = (70, 130, 180), (205, 219, 233)  # Steel blue and pale blue, no levels of grey.
LABELS, LABELS_HEIGHT = ("image", "known", "completed"), 16


def grid(
    images: Any, levels: int, columns: int | None = None, rows: Sequence[str] = ()
) -> np.ndarray:
    """Arranges images `[N, H, W, C]`, or a list of them, of 0 to K - 1, in one picture of uint8.

    One channel is drawn in grey (a picture `[height, width]`), three as RGB and four as RGBA; other
    numbers of channels lie side by side. Small images are magnified by an integer factor. Without
    `columns` the picture is about as wide as high. `rows` are names of the rows, on their left.
    """
    picture, _ = _arranged(_tiles(images, levels), columns, GREY)
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    if not rows:
        return picture
    font = ImageFont.load_default(12)
    size = 6 + int(max(map(font.getlength, rows))), len(picture)
    margin = Image.new("L" if picture.ndim == 2 else "RGBA"[: picture.shape[-1]], size, "white")
    for number, row in enumerate(rows):
        place = size[0] - 3, (number + 0.5) * size[1] / len(rows)
        ImageDraw.Draw(margin).text(place, row, "black", font, anchor="rm")
    return np.concatenate([np.asarray(margin), picture], axis=1)


def as_levels(images: Any, levels: int) -> tuple[Any, int]:
    """Returns images as integers from 0 to K - 1, and K, so that they can be drawn.

    They are `[N, H, W, C]`, or a list of several sizes. Dequantised values are floored. Real values
    (0 `levels`) are spread over 256 levels.
    """
    arrays = images if isinstance(images, list) else [np.asarray(images)]
    if not levels:
        low, high = min(map(np.min, arrays)), max(map(np.max, arrays))
        scale = 255 / max(high - low, 1e-30)
        arrays = [np.round(scale * (array - low)).astype(np.uint8) for array in arrays]
    elif arrays[0].dtype.kind == "f":
        arrays = [np.clip(np.floor(array), 0, levels - 1).astype(np.int32) for array in arrays]
    return arrays if isinstance(images, list) else arrays[0], levels or 256


def completions(
    images: ArrayLike, known: np.ndarray, completed: ArrayLike, levels: int, columns: int = 0
) -> np.ndarray:
    """Draws each original, its known values (the others are blue) and its completion side by side.

    All are `[N, H, W, C]`: images for `as_levels`, booleans `known`. The picture is RGB or RGBA.
    """
    (before, after), levels = as_levels(np.stack([images, completed]), levels)
    original, mask, result = _tiles(before, levels), _tiles(known, 2) > 0, _tiles(after, levels)
    unknown, ground = ([*colour, 255][: max(3, mask.shape[-1])] for colour in (UNKNOWN, GROUND))
    width, margin = mask.shape[2], 1 + mask.shape[2] // 8  # Between triples, on each side.
    triples = np.full((*mask.shape[:2], 3 * width + 2 + 2 * margin, len(ground)), ground, np.uint8)
    for number, part in enumerate((original, np.where(mask, original, unknown), result)):
        left = margin + number * (width + 1)
        triples[:, :, left : left + width] = part
    picture, factor = _arranged(triples, columns, ground)
    labels = Image.new("RGBA"[: len(ground)], (picture.shape[1], LABELS_HEIGHT), tuple(ground))
    font = ImageFont.load_default(min(12, factor * width / 5))
    for left in range(margin, picture.shape[1] // factor, triples.shape[2] + 1):
        for number, label in enumerate(LABELS):
            middle = factor * (left + number * (width + 1) + width / 2)
            ImageDraw.Draw(labels).text((middle, 1), label, "black", font, anchor="ma")
    return np.concatenate([np.asarray(labels), picture])


def pixel_map(
    images: Sequence[np.ndarray], nats: Sequence[np.ndarray], levels: int
) -> tuple[np.ndarray, float, float]:
    """Draws a `grid` of each image `[H, W, C]` beside a map of its `nats`, `[H, W]`.

    Colours go from black (0, or the least if it is negative) over red and yellow to white (the
    most). Returns the picture, and the nats of black and of white.
    """
    nats = [*map(np.asarray, nats)]
    black, white = float(min(map(np.min, nats))), float(max(map(np.max, nats)))
    black = black if black < -1e-5 else 0.0  # A probability may be rounded to more than 1.
    # Red rises in the first third of the range, green in the second, blue in the last.
    pairs = []
    for image, of_image in zip(images, nats, strict=True):
        share = (of_image - black) / max(white - black, 1e-30)
        heat = np.clip(3 * share[..., None] - np.arange(3.0), 0, 1)
        tile = _tiles(image[None], levels)[..., :3]
        tile = np.broadcast_to(tile, (*tile.shape[:-1], 3))
        pairs.append(_joined(tile, np.round(255 * heat[None]).astype(np.uint8))[0])
    return grid(pairs, 256), black, white


def png(picture: np.ndarray) -> bytes:
    """Returns a picture of uint8 as a PNG file."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def check_out(out: str, levels: int, channels: int) -> None:
    """Raises a `UserError` if a folder `out` of PNG files cannot hold K levels and C channels."""
    largest = 2**16 if channels == 1 else 2**8
    if not Path(out).suffix and not (2 <= levels <= largest and channels <= 4):
        raise UserError(f"--out={out}: no PNG has {levels} levels, {channels} channels: use .npz")


def write_images(
    images: Any,
    levels: int,
    out: str,
    columns: int | None = None,
    arrays: Mapping[str, Any] | None = None,
    names: Sequence[str] = (),
    rows: Sequence[str] = (),
) -> None:
    """Writes images `[N, H, W, C]`, or a list of them, in the format of the ending of `out`.

    - `.png`: a `grid` of all images.
    - `.npz`: `images`, of one size, and the `arrays`. It alone keeps real values.
    - no ending: a new folder with a PNG of the values of each image, perhaps by `names`; two levels
      are black and white.
    """
    if Path(out).suffix:
        with atomic_write(out) as file:
            if out.endswith(".npz"):
                np.savez_compressed(file, images=images, **arrays or {})
            else:
                file.write(png(grid(*as_levels(images, levels), columns, rows)))
        return
    target = Path(out).resolve()
    unfinished = target.with_name(f".{target.name[:40]}.{uuid.uuid4().hex}")
    images, _ = as_levels(images, levels)
    # Booleans are written as black and white, and read back as 0 and 1.
    two = levels == 2 and len(images) and images[0].shape[-1] == 1
    dtype = bool if two else value_dtype(levels)
    names = names or [str(i).zfill(len(str(len(images)))) for i in range(len(images))]
    unfinished.mkdir(parents=True)
    try:
        for name, image in zip(names, (image.astype(dtype) for image in images), strict=True):
            path = unfinished / (name if name.endswith(".png") else f"{name}.png")
            if not path.resolve().is_relative_to(unfinished):
                raise UserError(f"the name {name!r} leads out of a folder: use an .npz file")
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:  # On some disks A.png is a.png.
                file.write(png(image[..., 0] if image.shape[-1] == 1 else image))
        unfinished.rename(target)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def known_mask(known: str, image_shape: tuple[int, int, int]) -> np.ndarray:
    """Returns which values of an image are known, as booleans `[H, W, C]`.

    `known` is a half, such as "top_half", or an image file whose white pixels are known.
    """
    shape = image_shape[:2]
    row, column = np.indices(shape)
    top, left = row < shape[0] // 2, column < shape[1] // 2
    halves = {"top_half": top, "bottom_half": ~top, "left_half": left, "right_half": ~left}
    if known in halves:
        mask = halves[known]
    elif Path(known).is_file() and (pixels := read_image(Path(known))[..., 0]).shape == shape:
        mask = pixels > pixels.max() / 2
    else:
        file = f"an image file of height and width {shape}"
        raise UserError(f"--known must be {', '.join(halves)} or {file}, got {known!r}")
    return np.broadcast_to(mask[..., None], image_shape)


def _tiles(images: Any, levels: int) -> np.ndarray:
    """Returns images as uint8 `[N, H, W, 1, 3 or 4]`, wider for other numbers of channels."""
    if isinstance(images, list):  # As large as the largest.
        several = [_tiles(image[None], levels)[0] for image in images]
        height, width, channels = map(max, zip(*(tile.shape for tile in several), strict=True))
        tiles = np.full((len(several), height, width, channels), GREY, np.uint8)
        for tile, whole in zip(several, tiles, strict=True):
            whole[: tile.shape[0], : tile.shape[1]] = tile
        return tiles
    images = np.asarray(images)
    tiles = np.round(images * (255 / (levels - 1))).astype(np.uint8)
    channels = images.shape[-1]
    return tiles if channels in (1, 3, 4) else _joined(*np.split(tiles, channels, axis=-1))


def _joined(*parts: np.ndarray) -> np.ndarray:
    count, height, _, channels = parts[0].shape
    gap = np.full((count, height, 1, channels), GREY, np.uint8)
    return np.concatenate([piece for part in parts for piece in (gap, part)][1:], axis=2)


def _arranged(tiles: np.ndarray, columns: int | None, gap: Any) -> tuple[np.ndarray, int]:
    """Returns tiles `[N, H, W, 1, 3 or 4]` in rows and columns, magnified, and by what factor."""
    count, height, width, channels = tiles.shape
    if not columns:
        columns = int(np.clip(np.round((count * height / width) ** 0.5), 1, count))
        columns = -(-count // -(-count // columns))  # No more than so many rows need.
    shape = -(-count // columns) * (height + 1) - 1, columns * (width + 1) - 1, channels
    picture = np.full(shape, gap, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = index // columns * (height + 1), index % columns * (width + 1)
        picture[top : top + height, left : left + width] = tile
    factor = max(1, min(HEIGHT // height, LARGEST // max(picture.shape)))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1), factor
