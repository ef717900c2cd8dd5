"""The whole description of a run as frozen dataclasses that check themselves.

A config file gives an `ml_collections.ConfigDict`; `from_config_dict` turns it into a `Config`
once, and nothing after that sees a ConfigDict. Every impossible value raises `UserError` with the
field's dotted name, whether it comes from a file, the command line, a notebook or a saved
`config.json`.
"""

import dataclasses
import difflib
import itertools
import json
import math
import numbers
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_collections
from etils import epath

from pixel_rnn_jax import storage
from pixel_rnn_jax.errors import UserError

ARCHITECTURES = ("pixel_cnn", "row_lstm", "diagonal_bilstm")


@dataclass(frozen=True)
class ModelConfig:
    """One PixelRNN (sections 3 and 4 of the paper); the defaults are the paper's best MNIST model.

    Attributes:
        architecture: The body layer: "pixel_cnn", "row_lstm" or "diagonal_bilstm".
        layers: Number of body layers.
        features: h, the features of a body layer; the stream between layers has 2h.
        first_kernel: Side of the first convolution (mask A); odd.
        kernel: Row LSTM: taps of both of its convolutions; PixelCNN: side of the middle convolution
            of a block; odd. The Diagonal BiLSTM has no use for it.
        head_features: Width of the two ReLU and 1x1 layers before the output.
        output: What the head predicts of a value: "softmax" over its levels (a sigmoid for two; the
            paper's), "logistic" (a discretised mixture of logistics), or "continuous" (the density
            of a mixture of logistics, which is trained on dequantised values).
        mixtures: Components of the mixture of the outputs "logistic" and "continuous".
        scales: Heights of the images of a Multi-Scale PixelRNN, the smallest first and the whole
            image last, each a multiple of the one before; empty for a single scale.
        scale_architectures: The body layer of each scale; empty takes `architecture` for all.
        exact: Several scales: copy the pixels that the smaller image gives, so that the model is a
            distribution of images. False is the paper's plain form, which draws them anew.
        classes: Number of classes that the model is conditioned on; 0 for none. Training takes them
            from the labels of the data set.
        residual: Add a body layer's input to its output.
        skip: Connect every body layer to the output.
        dtype: What the network computes in: "float32", "bfloat16", or "float64" (which needs
            jax_enable_x64).
        remat: Compute each body layer again in the backward pass, to save memory.
        pack: Diagonal BiLSTM: images that share a lane of the recurrence; 0 lets the platform
            decide.
    """

    architecture: str = "diagonal_bilstm"
    layers: int = 7
    features: int = 16
    first_kernel: int = 7
    kernel: int = 3
    head_features: int = 32
    output: str = "softmax"
    mixtures: int = 10
    scales: tuple[int, ...] = ()
    scale_architectures: tuple[str, ...] = ()
    exact: bool = True
    classes: int = 0
    residual: bool = True
    skip: bool = True
    dtype: str = "float32"
    remat: bool = False
    pack: int = 0

    def __post_init__(self) -> None:
        _check_types(self, "model")
        _check_choice("model.architecture", self.architecture, ARCHITECTURES)
        _check_least("model.layers", self.layers, 1)
        _check_least("model.features", self.features, 1)
        _check_kernel("model.first_kernel", self.first_kernel)
        _check_kernel("model.kernel", self.kernel)
        _check_least("model.head_features", self.head_features, 1)
        _check_choice("model.dtype", self.dtype, ("float32", "bfloat16", "float64"))
        _check_least("model.pack", self.pack, 0)
        _check_choice("model.output", self.output, ("softmax", "logistic", "continuous"))
        _check_least("model.mixtures", self.mixtures, 1)
        if self.classes < 0 or self.classes == 1:
            raise UserError(f"model.classes must be 0 or at least 2, got {self.classes}")
        self._check_scales()

    def _check_scales(self) -> None:
        pairs = list(itertools.pairwise(self.scales))
        if len(self.scales) == 1 or any(a < 1 or b <= a or b % a for a, b in pairs):
            raise UserError(
                "model.scales must be empty, or at least two heights of which each is a larger "
                f"multiple of the one before, got {self.scales}"
            )
        if len(self.scale_architectures) not in (0, len(self.scales)):
            raise UserError(
                "model.scale_architectures must be empty or name one architecture for each of "
                f"model.scales ({len(self.scales)}), got {self.scale_architectures}"
            )
        for architecture in self.scale_architectures:
            _check_choice("model.scale_architectures", architecture, ARCHITECTURES)
        if self.output == "continuous" and self.scales:
            raise UserError('model.output "continuous" is for a single scale: empty model.scales')

    @property
    def plain(self) -> bool:
        """Whether this is the plain multi-scale form, which is no distribution of images."""
        return bool(self.scales) and not self.exact

    def of_scale(self, number: int) -> "ModelConfig":
        """Returns the config of one scale's own network, which knows of no other."""
        architectures = self.scale_architectures or (self.architecture,) * len(self.scales)
        return dataclasses.replace(
            self,
            architecture=architectures[number],
            scales=(),
            scale_architectures=(),
        )


@dataclass(frozen=True)
class DataConfig:
    """Where the images come from.

    Attributes:
        name: "digits", a TFDS name ("mnist", "downsampled_imagenet/32x32"), or the path of a folder
            of images or of an .npy or .npz file.
        data_dir: TFDS data directory; "" is TFDS's own default.
        levels: K, the number of values that a channel can take; 0 is what the set says.
        binarize: How images become binary: "none", "dynamic" (a new Bernoulli draw each time),
            "fixed" (one draw an image) or "threshold".
        train_split: What training reads, in TFDS split syntax ("train[:45000]").
        validation_split: What the best checkpoint is chosen by.
        test_split: What the reported likelihood is measured on.
    """

    name: str = "digits"
    data_dir: str = ""
    levels: int = 0
    binarize: str = "none"
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"

    def __post_init__(self) -> None:
        _check_types(self, "data")
        for field in ("name", "train_split", "validation_split", "test_split"):
            if not getattr(self, field):
                raise UserError(f"data.{field} must not be empty")
        if self.levels != 0 and self.levels < 2:
            raise UserError(f"data.levels must be 0 or at least 2, got {self.levels}")
        _check_choice("data.binarize", self.binarize, ("none", "dynamic", "fixed", "threshold"))


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule.

    Attributes:
        name: "rmsprop" (the paper's) or "adam".
        learning_rate: The rate that `schedule` starts from or warms up to.
        schedule: "constant", "cosine" (falls to zero at train.steps) or "piecewise". With
            train.in_turn each scale has the whole schedule in its own part of the steps.
        warmup_steps: Steps of linear warm-up before the schedule, whichever it is.
        boundaries: "piecewise" only: the steps at which the rate changes.
        factors: "piecewise" only: from boundaries[i] on the rate is multiplied by factors[i] too.
        clip_norm: Gradients are scaled down to this global norm; 0 switches that off.
        average: Decay of the moving average of the parameters that evaluation uses; 0 switches it
            off.
    """

    name: str = "rmsprop"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    boundaries: tuple[int, ...] = ()
    factors: tuple[float, ...] = ()
    clip_norm: float = 1.0
    average: float = 0.999

    def __post_init__(self) -> None:
        _check_types(self, "optimizer")
        _check_choice("optimizer.name", self.name, ("rmsprop", "adam"))
        if self.learning_rate <= 0:
            raise UserError(
                f"optimizer.learning_rate must be greater than 0, got {self.learning_rate}"
            )
        _check_choice("optimizer.schedule", self.schedule, ("constant", "cosine", "piecewise"))
        _check_least("optimizer.warmup_steps", self.warmup_steps, 0)
        self._check_pieces()
        _check_least("optimizer.clip_norm", self.clip_norm, 0)
        if not 0 <= self.average < 1:
            raise UserError(f"optimizer.average must be at least 0 and below 1, got {self.average}")

    def _check_pieces(self) -> None:
        if self.schedule != "piecewise":
            if self.boundaries or self.factors:
                raise UserError(
                    "optimizer.boundaries and optimizer.factors must be empty unless "
                    f'optimizer.schedule is "piecewise", and it is "{self.schedule}"'
                )
            return
        if not self.boundaries:
            raise UserError('optimizer.boundaries must not be empty for the schedule "piecewise"')
        if any(b <= a for a, b in zip((0, *self.boundaries), self.boundaries, strict=False)):
            raise UserError(
                f"optimizer.boundaries must be positive and increasing, got {self.boundaries}"
            )
        if len(self.factors) != len(self.boundaries):
            raise UserError(
                "optimizer.factors must have as many values as optimizer.boundaries "
                f"({len(self.boundaries)}), got {len(self.factors)}"
            )
        if any(factor <= 0 for factor in self.factors):
            raise UserError(f"optimizer.factors must be greater than 0, got {self.factors}")


@dataclass(frozen=True)
class TrainConfig:
    """How long to train, and how often to look.

    Attributes:
        steps: Number of updates.
        batch_size: Images of an update, over all devices.
        micro_batches: Parts in which a device computes its share of the batch, one after the other,
            adding up their gradients, to save memory; the update is the same.
        eval_batch_size: Images evaluated at a time, over all devices; it changes no result.
        log_every: Steps between two records of the training loss.
        eval_every: Steps between two validations.
        checkpoint_every: Steps between two checkpoints.
        in_turn: Several scales: train one after another, the smallest first, each for an equal part
            of the steps with a schedule and an optimiser state of its own, instead of all at once.
    """

    steps: int = 2500
    batch_size: int = 16
    micro_batches: int = 1
    eval_batch_size: int = 200
    log_every: int = 50
    eval_every: int = 500
    checkpoint_every: int = 500
    in_turn: bool = False

    def __post_init__(self) -> None:
        _check_types(self, "train")
        for field in dataclasses.fields(self):
            if field.type is int:
                _check_least(f"train.{field.name}", getattr(self, field.name), 1)
        if self.batch_size % self.micro_batches:
            raise UserError(
                f"train.micro_batches must divide train.batch_size ({self.batch_size}), got "
                f"{self.micro_batches}"
            )


@dataclass(frozen=True)
class Config:
    """Everything that determines a run, but for the code and the machine.

    Attributes:
        model: The network.
        data: The images.
        optimizer: The update rule.
        train: Duration and intervals.
        seed: Gives the initial parameters, the order of the images and every random draw.
    """

    model: ModelConfig = dataclasses.field(default_factory=ModelConfig)
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    seed: int = 0

    def __post_init__(self) -> None:
        _check_types(self, "")
        if not 0 <= self.seed < 2**32:
            raise UserError(f"seed must be at least 0 and below 2**32, got {self.seed}")
        if self.optimizer.schedule == "cosine" and self.optimizer.warmup_steps >= self.turn:
            raise UserError(
                "optimizer.warmup_steps must be below train.steps "
                f"({self.turn}{' for each scale' * self.train.in_turn}) for the schedule "
                f'"cosine", got {self.optimizer.warmup_steps}'
            )
        if self.train.in_turn and self.train.steps % max(len(self.model.scales), 1):
            raise UserError(
                "train.steps must be a multiple of the number of model.scales "
                f"({len(self.model.scales)}) with train.in_turn, got {self.train.steps}"
            )
        if self.train.in_turn and not self.model.scales:
            raise UserError("train.in_turn is for several model.scales, and there are none")

    @property
    def turn(self) -> int:
        """Steps over which the schedule runs: all, or with `train.in_turn` those of one scale."""
        turns = len(self.model.scales) if self.train.in_turn else 1
        return self.train.steps // max(turns, 1)


RESUMABLE = frozenset(
    {
        "model.remat",
        "model.pack",
        "data.data_dir",
        "data.test_split",
        "train.steps",
        "train.micro_batches",
        "train.eval_batch_size",
        "train.log_every",
        "train.eval_every",
        "train.checkpoint_every",
    }
)
"""The fields that may change when a run is resumed in its workdir.

They are those that leave the remaining course of training as it was: where things lie, how often
to look, how the same function is computed, and how long to go on. There is one exception,
`train.steps` under the "cosine" schedule or with `train.in_turn`, which spread the learning rate or
the scales over exactly that many steps. Every other field is fixed by the first run,
`data.validation_split` included, since validations on other images would not compare.
"""


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field of `config` that is not a group of fields."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns {dotted field: (old value, new value)} for the fields in which two configs differ."""
    new_values = dict(leaves(new))
    return {
        name: (value, new_values[name]) for name, value in leaves(old) if value != new_values[name]
    }


def check_resumable(old: Config, new: Config) -> None:
    """Checks that a run which was started with `old` may go on with `new` (see RESUMABLE).

    Raises:
        UserError: A field has changed that may not; names each, with both values.
    """
    changed = changed_fields(old, new)
    refused = changed.keys() - RESUMABLE
    if "cosine" in (old.optimizer.schedule, new.optimizer.schedule) or old.train.in_turn:
        refused |= changed.keys() & {"train.steps"}
    if refused:
        changes = ", ".join(
            f"{name} from {changed[name][0]!r} to {changed[name][1]!r}" for name in sorted(refused)
        )
        note = (
            ' (the "cosine" schedule, or the turns of the scales, are spread over train.steps)'
            if "train.steps" in refused
            else ""
        )
        raise UserError(
            f"this workdir holds a run that cannot go on with another config{note}: use another "
            f"--workdir, or do not change {changes}"
        )


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """Returns a ConfigDict with every field of `config`, so that flags can override each."""
    return ml_collections.ConfigDict(dataclasses.asdict(config))


def from_config_dict(values: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
    """Turns a ConfigDict or nested mappings into a checked `Config`.

    Absent fields keep their defaults.

    Raises:
        UserError: A field is unknown (the message names the nearest one that exists), has a value
            of another type, or an impossible value.
    """
    return _from_mapping(Config, values, "")


def field_kind(name: str) -> str:
    """Returns in words what the field with this dotted name takes ("an integer").

    Raises:
        UserError: There is no such field (the message names the nearest), or it is a whole group.
    """
    kinds = dict(_kinds(Config))
    if name in kinds:
        return kinds[name]
    inside = [field for field in kinds if field.startswith(f"{name}.")]
    if inside:
        raise UserError(f"{name} is a group of fields; set one of them, for example {inside[0]}")
    raise _unknown_field(name)


def choose_variant(
    argument: str, architecture: str, scales: tuple[int, ...] = ()
) -> dict[str, Any]:
    """Returns the fields of `ModelConfig` that a config file's argument chooses.

    Args:
        argument: An architecture, `multi_scale`, or both with a comma between them; or nothing.
        architecture: What is taken if none is named.
        scales: What `multi_scale` stands for; empty if the config has none.

    Raises:
        UserError: There is no such variant.
    """
    words = [word for word in argument.split(",") if word]
    for word in words:
        choices = ARCHITECTURES + ("multi_scale",) * bool(scales)
        _check_choice("what stands after the colon of --config", word, choices)
    named = [word for word in words if word in ARCHITECTURES]
    if len(named) > 1:
        raise UserError(f"--config takes one architecture after the colon, got {argument!r}")
    return {
        "architecture": named[0] if named else architecture,
        "scales": scales if "multi_scale" in words else (),
    }


def to_json(config: Config) -> str:
    """Returns `config` as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Returns the `Config` that `to_json` wrote.

    Fields that a later version has added keep their defaults.

    Raises:
        UserError: The text is damaged or is not a config.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise UserError(f"it is not JSON ({error})") from error
    sections = [field.name for field in dataclasses.fields(Config)]
    if not isinstance(values, dict) or not set(sections) <= values.keys():
        raise UserError(f"it does not hold the fields {', '.join(sections)}")
    return from_config_dict(values)


def write_config(config: Config, workdir: epath.PathLike) -> None:
    """Writes `workdir`/config.json in one piece: a reader finds the whole file or none."""
    _write_whole(epath.Path(workdir) / "config.json", to_json(config))


def read_config(workdir: epath.PathLike) -> Config:
    """Reads `workdir`/config.json.

    Raises:
        UserError: There is no such file, or it is damaged or not a config; names the file. The
            bucket that it is in cannot be used.
    """
    storage.check(workdir)
    path = epath.Path(workdir) / "config.json"
    content = _content(path, "training run")
    try:
        return from_json(content.decode())
    except (UserError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not a config that this version can read: {error}") from error


@dataclass(frozen=True)
class ImageFormat:
    """What the data set decides about a model.

    Attributes:
        image_shape: (H, W, C).
        levels: K.
    """

    image_shape: tuple[int, int, int]
    levels: int

    def __str__(self) -> str:
        return f"shape {self.image_shape} and {self.levels} levels"


def write_image_format(images: ImageFormat, workdir: epath.PathLike) -> None:
    """Writes `workdir`/images.json in one piece.

    Raises:
        UserError: It is there already and says something else: the data set has changed.
    """
    path = epath.Path(workdir) / "images.json"
    if path.exists():
        before = read_image_format(workdir)
        if before != images:
            raise UserError(
                f"{path.parent} was trained on images of {before}, the data set now has {images}: "
                "use another --workdir"
            )
    _write_whole(path, json.dumps(dataclasses.asdict(images)) + "\n")


def read_image_format(workdir: epath.PathLike) -> ImageFormat:
    """Reads `workdir`/images.json.

    Raises:
        UserError: There is no such file, or it is damaged; names the file.
    """
    path = epath.Path(workdir) / "images.json"
    content = _content(path, "trained model")
    try:
        values = json.loads(content)
        height, width, channels = map(int, values["image_shape"])
        return ImageFormat((height, width, channels), int(values["levels"]))
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error!r}): restore it, or train again") from error


def _content(path: epath.Path, missing: str) -> bytes:
    """Reads a file of a workdir, without which there is no such thing as `missing` says in it."""
    try:
        if path.exists():
            return path.read_bytes()
    except storage.errors() as error:
        raise UserError(f"{path} cannot be read: {storage.reason(error)}") from error
    raise UserError(f"{path.parent} holds no {missing}: there is no {path.name} in it")


def _write_whole(path: epath.Path, text: str) -> None:
    """Writes a file of which a reader finds the whole or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.parent / f"{path.name}.unfinished"
    unfinished.write_text(text)
    unfinished.replace(path)


def _from_mapping(cls: type[Any], values: Any, prefix: str) -> Any:
    if not isinstance(values, (Mapping, ml_collections.ConfigDict)):
        where = prefix.rstrip(".") or "the config"
        raise UserError(f"{where} must be a group of fields, got {values!r}")
    known = {field.name: field.type for field in dataclasses.fields(cls)}
    arguments = {}
    for name, value in values.items():
        if name not in known:
            raise _unknown_field(f"{prefix}{name}")
        section = known[name]
        if dataclasses.is_dataclass(section) and not isinstance(value, section):  # type: ignore[arg-type]
            value = _from_mapping(section, value, f"{prefix}{name}.")  # type: ignore[arg-type]
        arguments[name] = value
    return cls(**arguments)


def _unknown_field(name: str) -> UserError:
    sections = [field.name for field in dataclasses.fields(Config)]
    names = sections + [field for field, _ in _kinds(Config)]
    (nearest,) = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    return UserError(f"there is no field {name} in the config; did you mean {nearest}?")


def _kinds(cls: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (dotted name, what it takes in words) of every field that is not a group."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from _kinds(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, _KINDS[field.type]


_KINDS: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    tuple[int, ...]: "a tuple of integers",
    tuple[float, ...]: "a tuple of finite numbers",
    tuple[str, ...]: "a tuple of words",
}


def _check_types(config: Any, section: str) -> None:
    """Checks every field against its annotation; NumPy numbers and lists become Python's own."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{section}.{field.name}" if section else field.name
        try:
            # The dataclass is frozen for its users; this is still part of its construction.
            object.__setattr__(config, field.name, _converted(value, field.type))
        except TypeError:
            kind = _KINDS.get(field.type) or f"a {field.type.__name__}"  # type: ignore[union-attr]
            raise UserError(f"{name} must be {kind}, got {value!r}") from None


def _converted(value: Any, kind: Any) -> Any:
    """Returns `value` as a Python object of `kind`; raises TypeError where that would change it."""
    if kind in (tuple[int, ...], tuple[float, ...], tuple[str, ...]):
        if isinstance(value, (tuple, list)):
            return tuple(_converted(item, kind.__args__[0]) for item in value)
    elif kind is int:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
    elif kind is float:
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    elif isinstance(value, kind):
        return value
    raise TypeError


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        options = ", ".join(f'"{choice}"' for choice in choices)
        raise UserError(f'{name} must be one of {options}, got "{value}"')


def _check_least(name: str, value: float, least: int) -> None:
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}")


def _check_kernel(name: str, value: int) -> None:
    if value < 3 or value % 2 == 0:
        raise UserError(f"{name} must be odd and at least 3, got {value}")
