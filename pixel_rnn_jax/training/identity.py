"""What a run is: its config, the format of its images, and digests of its data."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from pixel_rnn_jax.data import ImageFormat
from pixel_rnn_jax.training.config import Config, from_config_dict


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
