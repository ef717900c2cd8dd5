"""What a model needs to know of its data set."""

import dataclasses
import json
import textwrap
from dataclasses import dataclass

import numpy as np

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.pixel_rnn import PixelRNN

MOST_VALUES = 2**26
"""Values of an image at most, in a file that names its format."""


@dataclass(frozen=True)
class ImageFormat:
    """What a model needs to know of its data set.

    Attributes:
        image_shape: (H, W, C).
        levels: K; 0 of real values.
        offset: [C], what real values are standardised with; () of levels.
        scale: [C], what they are divided by after that; () of levels.
        class_names: The names of the classes of a model with classes; () if they have none.
    """

    image_shape: tuple[int, int, int]
    levels: int
    offset: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        channels = self.image_shape[-1]
        if (len(self.offset), len(self.scale)) not in ((0, 0), (channels, channels)):
            raise ValueError(f"offset and scale must have {channels} numbers each, or none")
        if not np.isfinite(self.offset + self.scale).all() or min(self.scale, default=1) <= 0:
            raise ValueError("offset and scale must be finite, and scale greater than 0")

    def __str__(self) -> str:
        values = f"{self.levels} levels" if self.levels else "real values"
        names = textwrap.shorten(", ".join(self.class_names), 60, placeholder=" …")
        classes = f" in {len(self.class_names)} classes ({names})" if names else ""
        return f"shape {self.image_shape} and {values}{classes}"

    def to_json(self) -> str:
        """Returns the image format as JSON text."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "ImageFormat":
        """Returns the image format that `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError: The text is damaged or is no image format.
        """
        values = json.loads(text)
        height, width, channels = map(int, values["image_shape"])
        if height * width * channels > MOST_VALUES:  # A forged file would take all memory.
            raise ValueError(f"images of {height}x{width}x{channels} are too large")
        names = values.get("class_names", [])
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("class_names must be strings")
        return cls(
            (height, width, channels),
            int(values["levels"]),
            offset=tuple(map(float, values.get("offset", []))),
            scale=tuple(map(float, values.get("scale", []))),
            class_names=tuple(names),
        )

    def model(self, config: ModelConfig) -> PixelRNN:
        """Returns the model of such images."""
        return PixelRNN(config, self.image_shape, self.levels, self.offset, self.scale)

    def same_images(self, other: "ImageFormat") -> bool:
        """Returns whether images of both have one shape, and values and classes of one meaning.

        Names of classes that one of the two does not know are no difference: runs of earlier
        versions did not store them.
        """
        names = self.class_names, other.class_names
        return (self.image_shape, self.levels) == (other.image_shape, other.levels) and (
            names[0] == names[1] or () in names
        )
