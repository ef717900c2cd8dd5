"""The config of a run, and its other forms: files, flags such as --config.seed=3, and JSON."""

import dataclasses
import inspect
import json
import operator
import re
import runpy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from absl import flags
from ml_collections import ConfigDict, config_flags

from pixel_rnn_jax.data.config import DataConfig
from pixel_rnn_jax.model.config import BELOW_ONE, POSITIVE, ModelConfig, Rule, check, check_fields
from pixel_rnn_jax.system.errors import UserError

_POSITIVE = "learning_rate", "steps", "batch_size", "eval_batch_size"
_RULES: dict[str, Rule] = {
    **dict.fromkeys((*_POSITIVE, "log_every", "eval_every", "checkpoint_every"), POSITIVE),
    "ema_decay": BELOW_ONE,
    "seed": ("be below 2**32", lambda seed: seed < 2**32),
}


@dataclass(frozen=True)
class OptimizerConfig:
    """The update rule; the defaults are as in configs/mnist.py, without its warm-up.

    Attributes:
        name: "rmsprop" (the paper's), "adam", or "muon" (kernels are updated by orthogonalised
            momentum; vectors, embeddings and the last layer by Adam).
        learning_rate: Rate that the schedule starts from, after the warm-up.
        schedule: "constant", or "cosine", which falls to zero at train.steps.
        warmup_steps: Steps of linear warm-up; with no more steps than these, `steps // 10`.
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
        check_fields(self, "optimizer", _RULES)


@dataclass(frozen=True)
class TrainConfig:
    """Duration, batches and intervals of training.

    Attributes:
        steps: Number of updates.
        batch_size: Images of an update, over all devices.
        micro_batches: Parts of a device's share of a batch, computed one by one to save memory; on
            a CPU 0 takes as many as keep the activations of a part in cache, elsewhere 1.
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
        check_fields(self, "train", _RULES)
        whole = self.batch_size % (self.micro_batches or 1) == 0
        check(self, "train.micro_batches", f"divide {self.batch_size}, train.batch_size", whole)


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
        check_fields(self, "", _RULES)
        mirrors = not self.data.flip or self.model.condition.kind != "map"
        check(self.data, "data.flip", "be False with model.condition_map", mirrors)


_FOLDERS = [folder / "configs" for folder in Path(__file__).parents[1:3]]  # Wheel, checkout.
CONFIGS = {path.stem: path for path in sorted(next(filter(Path.is_dir, _FOLDERS)).glob("[!_]*.py"))}
"""The config files that come with the package, by name."""
_GROUPS: dict[str, Any] = {
    f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)
}
_FIELDS = [f"{name}.{f.name}" for name, group in _GROUPS.items() for f in dataclasses.fields(group)]
_FIELDS += [f.name for f in dataclasses.fields(Config) if f.name not in _GROUPS]


def load_config(source: str) -> Config:
    """Runs a config file, whose `get_config` returns a `ConfigDict` of some fields or all.

    `source` is one of the `CONFIGS` or a path, perhaps with an argument for `get_config` after a
    colon: "digits", "mnist:row_lstm", "configs/mnist.py".
    """
    name, _, argument = source.partition(":")
    file = CONFIGS.get(name, Path(name))
    get_config = runpy.run_path(str(file)).get("get_config") if file.is_file() else None
    if get_config is None:
        choices = f"give the path of one, or one of {', '.join(CONFIGS)}"
        raise UserError(f"--config={name} names no file with a function get_config: {choices}")
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, (Mapping, ConfigDict)):
        raise UserError(f"get_config of --config={name} must return fields, got {config!r}")
    return from_config_dict(config)


def base_config(variant: str, architecture: str, scales: tuple[int, ...]) -> ConfigDict:
    """Returns the defaults of every field, for a config file to start from.

    `variant`, the text after the colon, overrides `architecture`, or "multi_scale" sets `scales`.
    """
    config = ConfigDict(dataclasses.asdict(Config())).lock()
    if variant == "multi_scale":
        config.model.scales, variant = scales, ""
    config.model.architecture = variant or architecture  # It is checked where the layers are.
    return config


def from_config_dict(values: ConfigDict | Mapping[str, Any]) -> Config:
    """Turns a ConfigDict or nested mappings into a `Config`; absent fields keep their defaults."""
    fields: dict[str, Any] = dict(values.items())
    for name, value in values.items():
        if name in _GROUPS and isinstance(value, (Mapping, ConfigDict)):
            for field in value:
                _check_name(f"{name}.{field}")
            fields[name] = _GROUPS[name](**value)
        else:
            _check_name(name)
    return Config(**fields)


def with_flags(config: Config, words: Sequence[str]) -> Config:
    """Returns a config with the fields that flags set, such as "--config.model.scales=8,16"."""
    values = flags.FlagValues()
    values.set_gnu_getopt(True)  # Flags may follow values that stand for themselves.
    fields = ConfigDict(dataclasses.asdict(config))
    for word in words:
        prefix, is_field, name = word.partition("=")[0].partition("config.")
        if is_field and prefix in ("--", "--no"):
            _check_name(name)
        elif word.startswith("--") and (flag := prefix[2:]):
            in_group = [field for field in _FIELDS if field.startswith(f"{flag}.")]
            for likely in (in_group or get_close_matches(flag, _FIELDS, 1))[:1]:
                raise UserError(f"there is no flag --{flag}; did you mean --config.{likely}?")
    holder = config_flags.DEFINE_config_dict(
        "config", fields, flag_values=values, sys_argv=[*words]
    )
    _, *rest = values(["", *words])
    if rest:
        raise UserError(f"there is no argument {rest[0]!r}: flags begin with --")
    return from_config_dict(holder.value)


def to_json(config: Config) -> str:
    """Returns a config as JSON text, whose object `from_config_dict` takes."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field that is not a group of fields."""
    return ((name, operator.attrgetter(name)(config)) for name in _FIELDS)


def meanings() -> dict[str, str]:
    """Returns what the docstrings say of each field, {dotted name: sentences}."""
    found = {}
    for group, class_ in {"": Config, **_GROUPS}.items():
        attributes = inspect.cleandoc(class_.__doc__).partition("Attributes:\n")[2]
        entries = re.split(r"^    (\w+): ", attributes.partition("\n\n")[0], flags=re.M)[1:]
        for name, text in zip(entries[::2], entries[1::2], strict=True):
            found[f"{group}.{name}".lstrip(".")] = " ".join(text.split())
    return found


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields in which two configs differ, {dotted name: (old value, new value)}."""
    pairs = zip(leaves(old), leaves(new), strict=True)
    return {name: (before, after) for (name, before), (_, after) in pairs if before != after}


def _check_name(name: str) -> None:
    if name not in _FIELDS:
        likely = get_close_matches(name, _FIELDS, 1, 0)[0]
        raise UserError(f"there is no field config.{name}; did you mean config.{likely}?")
