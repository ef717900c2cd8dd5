"""The fields of a model. An impossible value raises `UserError` with the field's dotted name."""

import dataclasses
import inspect
import itertools
import math
import numbers
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pixel_rnn_jax.system.errors import UserError

Rule = tuple[str, Callable[[Any], bool]]
POSITIVE: Rule = ("be greater than 0", lambda number: number > 0)
BELOW_ONE: Rule = ("be below 1", lambda number: number < 1)
SEVERAL: Rule = ("be 0 or at least 2", lambda count: count != 1)
_ODD: Rule = ("be odd, from 3 to 255", lambda side: 3 <= side <= 255 and side % 2 == 1)
_RULES = {
    **dict.fromkeys(("features", "head_features", "mixtures"), POSITIVE),
    "layers": ("be from 1 to 100", lambda layers: 1 <= layers <= 100),  # 20 ms each to trace.
    "dropout": BELOW_ONE,
    "first_kernel": _ODD,
    "kernel": _ODD,
    "num_classes": SEVERAL,
}


CONDITIONS = {"class": "num_classes", "vector": "condition_vector", "map": "condition_map"}
"""The field of `ModelConfig` for each kind of condition."""


class Condition(NamedTuple):
    """What a model is conditioned on: its kind, "class", "vector" or "map", and its size.

    The size is the number of classes, or D. Without a condition they are "" and 0.
    """

    kind: str = ""
    size: int = 0

    @property
    def classes(self) -> int:
        """The number of classes; 0 for another condition or none."""
        return self.size if self.kind == "class" else 0

    def shape(self, image_shape: tuple[int, int, int]) -> tuple[int, ...]:
        """Returns the shape of the condition of one image."""
        height, width, _ = image_shape
        shapes = {"vector": (self.size,), "map": (height, width, self.size)}
        return shapes.get(self.kind, ())

    def __str__(self) -> str:
        return f"model.{CONDITIONS[self.kind]}={self.size}" if self.size else "no condition"


@dataclass(frozen=True)
class ModelConfig:
    """One PixelRNN (sections 3 and 4 of the paper); the defaults are the paper's best MNIST model.

    Attributes:
        architecture: The body: "pixel_cnn", "row_lstm", "diagonal_bilstm", "linear_rnn",
            "gated_pixel_cnn", or another name in `layers.BODIES`.
        layers: Number of layers of the body.
        features: h, the features of a layer; the stream between layers has 2h.
        first_kernel: Side of the first convolution (mask A); odd.
        kernel: Taps of the Row LSTM's convolutions, or side of a PixelCNN block's; odd.
        head: What follows the body, a name in `layers.HEADS`.
        head_features: Width of the two ReLU and 1x1 layers before the output.
        input: How a value enters: as an intensity, "scalar" (the paper's), or as an embedding of
            its level, "categorical" (for codes and classes, whose order means nothing).
        output: Distribution of a value, a name of `likelihoods.OUTPUTS`: "softmax" over its levels
            (the paper's; a sigmoid for two), "discretized_logistic_mixture", or
            "coupled_logistic_mixture", which sees whole pixels; or a density: "logistic_mixture" of
            dequantised values, "gaussian_mixture" of real ones.
        mixtures: M, the components of the outputs that are mixtures.
        total: Fixed sum of the values of every image, as of a magnetisation; 0 for free. Levels
            that make it unreachable get probability 0. It takes a softmax and one scale.
        scales: Image heights of a Multi-Scale PixelRNN, from the smallest to the whole image, each
            a multiple of the one before; empty for a single scale.
        scale_architectures: The body of each scale; empty takes `architecture` for all.
        copy_coarse: Copy the pixels of the smaller image into the larger one, so that several
            scales have a likelihood. False is the paper's plain form, which draws them again.
        num_classes: Classes that the model is conditioned on, the labels of the data; 0 for none.
        condition_vector: D of the vectors `[B, D]` that it is conditioned on; 0 for none.
        condition_map: D of the maps `[B, H, W, D]` that it is conditioned on; 0 for none.
        dropout: Probability with which training zeroes each output of a layer.
        residual: Add a layer's input to its output.
        skip: Connect every layer to the output.
        dtype: "bfloat16" rounds the operands of matrix products, and the maps of the condition;
            "float64" needs jax_enable_x64.
        remat: Recompute each layer in the backward pass, to save memory.
        images_per_lane: Images in a lane of the Diagonal BiLSTM's scan; 0 chooses by platform.

    >>> config = prnn.ModelConfig("row_lstm", layers=2, features=16, num_classes=10)
    >>> prnn.create(config, (8, 8, 1), levels=17).sample(jax.random.key(0), 2, [3, 4]).shape
    (2, 8, 8, 1)
    """

    architecture: str = "diagonal_bilstm"
    layers: int = 7
    features: int = 16
    first_kernel: int = 7
    kernel: int = 3
    head: str = "relu_1x1"
    head_features: int = 32
    input: Literal["scalar", "categorical"] = "scalar"
    output: str = "softmax"
    mixtures: int = 10
    total: int = 0
    scales: tuple[int, ...] = ()
    scale_architectures: tuple[str, ...] = ()
    copy_coarse: bool = True
    num_classes: int = 0
    condition_vector: int = 0
    condition_map: int = 0
    dropout: float = 0.0
    residual: bool = True
    skip: bool = True
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    remat: bool = False
    images_per_lane: int = 0

    def __post_init__(self) -> None:
        check_fields(self, "model", _RULES)
        given = [field for field in CONDITIONS.values() if getattr(self, field)]
        rule = f"be 0 with {' and '.join(given[:-1])}"
        check(self, f"model.{given[-1] if given else 'num_classes'}", rule, len(given) < 2)
        rule = "be empty, or at least two heights, each a larger multiple of the one before"
        multiples = all(0 < a < b and b % a == 0 for a, b in itertools.pairwise(self.scales))
        check(self, "model.scales", rule, len(self.scales) != 1 and multiples)
        rule = "be empty, or name an architecture for each of model.scales"
        check(self, "model.total", "be 0 with several scales", not (self.total and self.scales))
        as_many = len(self.scale_architectures) in (0, len(self.scales))
        check(self, "model.scale_architectures", rule, as_many)

    @property
    def condition(self) -> Condition:
        """What the model is conditioned on."""
        sizes = {kind: getattr(self, field) for kind, field in CONDITIONS.items()}
        return next((Condition(kind, size) for kind, size in sizes.items() if size), Condition())

    @property
    def redraws_coarse(self) -> bool:
        """Whether this is the paper's plain multi-scale form, which has no likelihood of images."""
        return bool(self.scales) and not self.copy_coarse

    @property
    def architectures(self) -> tuple[str, ...]:
        """The architecture of each scale."""
        return self.scale_architectures or (self.architecture,) * max(len(self.scales), 1)

    def scale_config(self, number: int) -> "ModelConfig":
        """Returns the config of one scale's network, as a single-scale model."""
        architecture = self.architectures[number]
        return dataclasses.replace(
            self, architecture=architecture, scales=(), scale_architectures=()
        )


def check(config: Any, name: str, requirement: str, ok: bool) -> None:
    """Raises a `UserError` that names a field unless it is ok."""
    if not ok:
        value = getattr(config, name.rpartition(".")[2])
        raise UserError(f"{name} must {requirement}, got {value!r}")


def check_fields(config: Any, group: str, rules: Mapping[str, Rule]) -> None:
    """Converts every field to its type, and checks it against its choices and its rule, if any.

    Besides, no number may be negative.
    """
    for field in dataclasses.fields(config):
        name, value = f"{group}.{field.name}".lstrip("."), getattr(config, field.name)
        try:
            # Still part of the construction of the frozen dataclass.
            object.__setattr__(config, field.name, value := _convert(value, field.type))
        except TypeError:
            annotation = inspect.formatannotation(field.type)
            raise UserError(f"{name} must be of type {annotation}, got {value!r}") from None
        if isinstance(value, (int, float)):
            check(config, name, "be finite and at least 0", 0 <= value < math.inf)
        if get_origin(field.type) is Literal:
            choices = get_args(field.type)
            check(config, name, f"be one of {', '.join(choices)}", value in choices)
        if field.name in rules:
            rule, holds = rules[field.name]
            check(config, name, rule, holds(value))


def _convert(value: Any, type_: Any) -> Any:
    """Returns a value as a field's type: also NumPy's numbers, lists for tuples, and 1 for 1.0."""
    if get_origin(type_) is Literal:
        type_ = str
    items = get_args(type_)
    if items and isinstance(value, (tuple, list)):
        if items[0] is str:  # A flag may give several words as one.
            value = [word for item in value for word in str(item).split(",")]
        return tuple(_convert(item, items[0]) for item in value)
    number = {int: numbers.Integral, float: numbers.Real}.get(type_)
    if number and type(value) is not bool and isinstance(value, number):
        return type_(value)
    if items or number or not isinstance(value, type_):
        raise TypeError
    return value
