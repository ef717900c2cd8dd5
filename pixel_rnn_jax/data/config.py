"""The fields that name the images of a run."""

from dataclasses import dataclass
from typing import Literal

from pixel_rnn_jax.model.config import SEVERAL, Rule, check_fields

_RULES: dict[str, Rule] = {
    "name": ("not be empty", bool),
    "levels": SEVERAL,
    "crop": ("be at least 0", lambda crop: crop >= 0),
}


@dataclass(frozen=True)
class DataConfig:
    """The images of a run.

    Attributes:
        name: "digits", the name of a set that `pixel-rnn-jax prepare` knows ("mnist") or that TFDS
            has prepared, or the path of a folder of images or of a file that `data.READERS` reads.
        data_dir: TFDS data directory, which is looked into first; "" is TFDS's default.
        levels: K, the number of values that a channel can take; 0 takes it from the data set.
        crop: Side of squares, of pictures of any size: in training a square at a random place of a
            picture at each visit, in evaluation all that fit side by side; 0 takes whole images.
        binarize: How images become binary: "none" (they stay as they are), "dynamic" (a new
            Bernoulli draw each time) or "fixed" (one draw for each image).
        flip: Show each training image, at each visit, mirrored left to right with probability 1/2.
        train_split: Images to train on: the name of a split, or a part of one ("train[:45000]",
            "train[:99%]").
        validation_split: Images by whose likelihood the best checkpoint is chosen.
        test_split: Images whose likelihood is reported.

    >>> prnn.Config(data=prnn.DataConfig("mnist", binarize="fixed")).data.train_split
    'train'
    """

    name: str = "digits"
    data_dir: str = ""
    levels: int = 0
    crop: int = 0
    binarize: Literal["none", "dynamic", "fixed"] = "none"
    flip: bool = False
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"

    def __post_init__(self) -> None:
        check_fields(self, "data", _RULES)
