"""Images as the content of files."""

import io

from PIL import Image


def png(pixels, mode=None):
    """Returns a PNG file of this mode, or of the one that fits."""
    picture, file = Image.fromarray(pixels.squeeze()), io.BytesIO()
    (picture.convert(mode) if mode else picture).save(file, "PNG")
    return file.getvalue()
