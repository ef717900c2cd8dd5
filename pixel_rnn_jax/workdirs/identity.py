"""What a run is: its config, the format of its images, and digests of its data."""

import dataclasses
import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pixel_rnn_jax.config import Config, ModelConfig, from_config_dict
from pixel_rnn_jax.pixel_rnn import PixelRNN


@dataclass(frozen=True)
class ImageFormat:
    """The images of a data set, as a model sees them; the fields are `PixelRNN`'s.

    `class_names` is () for a model without classes, or of classes without names.
    """

    image_shape: tuple[int, int, int]
    levels: int
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ImageFormat":
        """Returns the format whose `dataclasses.asdict` went through JSON."""
        fields: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**fields)

    def model(self, config: ModelConfig) -> PixelRNN:
        """Returns the model of such images."""
        return PixelRNN(config, self.image_shape, self.levels, self.mean, self.std)

    def same_images(self, other: "ImageFormat") -> bool:
        """Whether images of both have one shape, and values and classes of one meaning."""
        return dataclasses.replace(self, mean=(), std=()) == dataclasses.replace(
            other, mean=(), std=()
        )


@dataclass(frozen=True)
class RunIdentity:
    """What a checkpoint belongs to, and is compared with whenever it is read.

    `origin` is the SHA-256 of the identity that the run began with, which all its checkpoints have.
    """

    config: Config
    image_format: ImageFormat
    data: dict[str, str]  # The digest of each split, by "train", "validation" and "test".
    origin: str = ""

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "RunIdentity":
        """Returns the identity whose `dataclasses.asdict` went through JSON."""
        image_format = ImageFormat.from_dict(values["image_format"])
        config = from_config_dict(values["config"])
        return cls(config, image_format, values["data"], values["origin"])


def sha256_of_json(values: Any) -> str:
    """Returns the SHA-256 of values that JSON can hold."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
