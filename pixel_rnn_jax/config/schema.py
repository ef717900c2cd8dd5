"""The fields of a config. An impossible value raises `UserError` with the field's dotted name."""

import dataclasses
import inspect
import itertools
import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from pixel_rnn_jax.errors import UserError

Rule = tuple[str, Callable[[Any], bool]]
_POSITIVE_FIELDS = (
    *(f"model.{name}" for name in ("layers", "features", "head_features", "mixtures")),
    *(f"train.{name}" for name in ("steps", "batch_size", "eval_batch_size")),
    *(f"train.{name}" for name in ("log_every", "eval_every", "checkpoint_every")),
    "optimizer.learning_rate",
)
_ODD: Rule = ("be odd, from 3 to 255", lambda side: 3 <= side <= 255 and side % 2 == 1)
_SEVERAL: Rule = ("be 0 or at least 2", lambda count: count != 1)
RULES: dict[str, Rule] = {
    **dict.fromkeys(_POSITIVE_FIELDS, ("be greater than 0", lambda number: number > 0)),
    "optimizer.ema_decay": ("be below 1", lambda decay: decay < 1),
    "model.dropout": ("be below 1", lambda rate: rate < 1),
    "model.first_kernel": _ODD,
    "model.kernel": _ODD,
    "model.num_classes": _SEVERAL,
    "data.levels": _SEVERAL,
    "data.name": ("not be empty", bool),
    "seed": ("be below 2**32", lambda seed: seed < 2**32),
}
"""What single fields must be; besides, no number may be negative."""


@dataclass(frozen=True)
class ModelConfig:
    """One PixelRNN (sections 3 and 4 of the paper); the defaults are the paper's best MNIST model.

    Attributes:
        architecture: The body: "pixel_cnn", "row_lstm", "diagonal_bilstm", "gated_pixel_cnn", or
            another name in `layers.LAYERS` or `layers.BODIES`.
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
        total: The sum of all values of every image, if it is known, as magnetisation is: levels
            after which it cannot be reached have probability 0. With a softmax and one scale; 0 for
            none.
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
        _check_fields(self, "model")
        if sum(map(bool, (self.num_classes, self.condition_vector, self.condition_map))) > 1:
            raise UserError("set only one of model.num_classes, condition_vector and condition_map")
        rule = "be empty, or at least two heights, each a larger multiple of the one before"
        multiples = all(0 < a < b and b % a == 0 for a, b in itertools.pairwise(self.scales))
        _check(self, "model.scales", rule, len(self.scales) != 1 and multiples)
        rule = "be empty, or name an architecture for each of model.scales"
        _check(self, "model.total", "be 0 with several scales", not (self.total and self.scales))
        as_many = len(self.scale_architectures) in (0, len(self.scales))
        _check(self, "model.scale_architectures", rule, as_many)

    @property
    def redraws_coarse(self) -> bool:
        """Whether this is the paper's plain multi-scale form, which has no likelihood of images."""
        return bool(self.scales) and not self.copy_coarse

    def of_scale(self, number: int) -> "ModelConfig":
        """Returns the config of one scale's network, as a single-scale model."""
        architectures = self.scale_architectures or (self.architecture,) * max(len(self.scales), 1)
        return dataclasses.replace(
            self, architecture=architectures[number], scales=(), scale_architectures=()
        )


@dataclass(frozen=True)
class DataConfig:
    """The images of a run.

    Attributes:
        name: "digits", the name of a set that `pixel-rnn-jax prepare` knows ("mnist") or that TFDS
            has prepared, or the path of a folder of images or of an .npy or .npz file.
        data_dir: TFDS data directory, which is looked into first; "" is TFDS's default.
        levels: K, the number of values that a channel can take; 0 takes it from the data set.
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
    binarize: Literal["none", "dynamic", "fixed"] = "none"
    flip: bool = False
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"

    def __post_init__(self) -> None:
        _check_fields(self, "data")


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule; the defaults are as in configs/mnist.py, without its warm-up.

    Attributes:
        name: "rmsprop" (the paper's), "adam", or "muon" (kernels are updated by orthogonalised
            momentum; vectors, embeddings and the last layer by Adam).
        learning_rate: Rate that the schedule starts from, after the warm-up.
        schedule: "constant", or "cosine", which falls to zero at train.steps.
        warmup_steps: Steps of linear warm-up; a tenth of the steps of a run that is no longer.
        clip_norm: Global norm that gradients are clipped to; 0 for none.
        weight_decay: Each update also subtracts this times the rate times the weight, of kernels
            alone.
        ema_decay: Decay of the moving average of the parameters, which evaluation uses; 0 for none.
            At step t it is at most (1 + t) / (10 + t): 0.999 holds from step 9,000 on.

    >>> prnn.Config(optimizer=prnn.OptimizerConfig("rmsprop", weight_decay=0.0)).optimizer.name
    'rmsprop'
    """

    name: Literal["rmsprop", "adam", "muon"] = "muon"
    learning_rate: float = 6e-3
    schedule: Literal["constant", "cosine"] = "cosine"
    warmup_steps: int = 0
    clip_norm: float = 1.0
    weight_decay: float = 0.1
    ema_decay: float = 0.999

    def __post_init__(self) -> None:
        _check_fields(self, "optimizer")


@dataclass(frozen=True)
class TrainConfig:
    """Duration, batches and intervals of training.

    Attributes:
        steps: Number of updates.
        batch_size: Images of an update, over all devices.
        micro_batches: Parts of a device's share of a batch, computed one by one to save memory; 0
            takes as many on a CPU as keep the maps of a part in its caches, else 1.
        eval_batch_size: Images evaluated at a time, over all devices; it changes no result.
        log_every: Steps between records of the training loss.
        eval_every: Steps between validations.
        checkpoint_every: Steps between checkpoints.
        patience: Validations without improvement after which training stops; 0 for never.

    >>> prnn.Config(train=prnn.TrainConfig(steps=10_000, eval_every=250, patience=5)).train.steps
    10000
    """

    steps: int = 2500
    batch_size: int = 16
    micro_batches: int = 0
    eval_batch_size: int = 200
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    patience: int = 0

    def __post_init__(self) -> None:
        _check_fields(self, "train")
        whole = self.batch_size % (self.micro_batches or 1) == 0
        _check(self, "train.micro_batches", f"divide {self.batch_size}, train.batch_size", whole)


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, except the code and the machine.

    Attributes:
        model, data, optimizer, train: See their classes.
        seed: Seed of the initial parameters, the order of the images and every random draw.
        init_from: Source of a new run's first parameters: the workdir of a run, an exported file,
            or the name of a model of the package; "" draws them.

    >>> model, train = prnn.ModelConfig("pixel_cnn", layers=3), prnn.TrainConfig(steps=500)
    >>> prnn.Config(model, train=train, seed=1).model.layers
    3
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    seed: int = 0
    init_from: str = ""

    def __post_init__(self) -> None:
        _check_fields(self, "")
        data = self.data
        mirrors = not (data.flip and self.model.condition_map)
        _check(data, "data.flip", "be False with model.condition_map", mirrors)


def _check(config: Any, name: str, requirement: str, ok: bool) -> None:
    if not ok:
        value = getattr(config, name.rpartition(".")[2])
        raise UserError(f"{name} must {requirement}, got {value!r}")


def _check_fields(config: Any, group: str) -> None:
    """Converts every field to its type, and checks it against its choices and `RULES`."""
    for field in dataclasses.fields(config):
        name, value = f"{group}.{field.name}".lstrip("."), getattr(config, field.name)
        try:
            # Still part of the construction of the frozen dataclass.
            object.__setattr__(config, field.name, value := _convert(value, field.type))
        except TypeError:
            kind = inspect.formatannotation(field.type)
            raise UserError(f"{name} must be of type {kind}, got {value!r}") from None
        if isinstance(value, (int, float)):
            _check(config, name, "be finite and at least 0", 0 <= value < math.inf)
        if get_origin(field.type) is Literal:
            choices = get_args(field.type)
            _check(config, name, f"be one of {', '.join(choices)}", value in choices)
        if name in RULES:
            rule, holds = RULES[name]
            _check(config, name, rule, holds(value))


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
    if number and isinstance(value, number) and not isinstance(value, bool):
        return type_(value)
    if items or number or not isinstance(value, type_):
        raise TypeError
    return value
