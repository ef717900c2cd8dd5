"""Other forms of a config: config files, JSON, and overrides such as "model.layers=3"."""

import dataclasses
import inspect
import json
import operator
import re
import runpy
from collections.abc import Iterable, Iterator, Mapping
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, get_args, get_origin

from ml_collections import ConfigDict

from pixel_rnn_jax.config.schema import ARCHITECTURES, Config
from pixel_rnn_jax.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = _PACKAGE / "configs", _PACKAGE.parent / "configs"  # Of a wheel, of a checkout.
CONFIGS = {path.stem: path for path in sorted(next(filter(Path.is_dir, _FOLDERS)).glob("[!_]*.py"))}
"""The config files that come with the package, by name."""
_GROUPS: dict[str, Any] = {
    f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)
}
_FIELDS: dict[str, Any] = {
    f"{name}.{f.name}": f.type for name, group in _GROUPS.items() for f in dataclasses.fields(group)
} | {f.name: f.type for f in dataclasses.fields(Config) if f.name not in _GROUPS}


def load_config(source: str) -> Config:
    """Runs a config file, whose `get_config` returns some fields or all; see `from_config_dict`.

    Args:
        source: The name of one of the `CONFIGS` or the path of a file, perhaps with an argument for
            `get_config` after a colon: "digits", "mnist:row_lstm", "configs/mnist.py".
    """
    name, _, argument = source.partition(":")
    file = CONFIGS.get(name, Path(name))
    get_config = runpy.run_path(str(file)).get("get_config") if file.is_file() else None
    if get_config is None:
        raise UserError(
            f"--config={name} names no file with a function get_config: give the path of one, or "
            f"one of {', '.join(CONFIGS)}"
        )
    return from_config_dict(get_config(argument) if argument else get_config())


def base_config(variant: str, architecture: str, scales: tuple[int, ...]) -> ConfigDict:
    """Returns the defaults of every field, for a config file to start from.

    Args:
        variant: What follows the colon of --config: an architecture, "multi_scale", or nothing.
        architecture: The architecture unless the variant names one.
        scales: `model.scales` of the variant "multi_scale".
    """
    variants = (*ARCHITECTURES, "multi_scale")
    if variant not in ("", *variants):
        raise UserError(f"--config takes {', '.join(variants)} after its colon, got {variant!r}")
    config = ConfigDict(dataclasses.asdict(Config())).lock()
    config.model.architecture = variant if variant in ARCHITECTURES else architecture
    config.model.scales = scales if variant == "multi_scale" else ()
    return config


def from_config_dict(values: ConfigDict | Mapping[str, Any]) -> Config:
    """Turns a ConfigDict or nested mappings into a `Config`; absent fields keep their defaults.

    Raises:
        UserError: A field is unknown (the message suggests a similar one) or impossible.
    """
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, (Mapping, ConfigDict)):
            for field in value:
                _check_name(f"{name}.{field}")
            fields[name] = _GROUPS[name](**value)
        else:
            _check_name(name)
            fields[name] = value
    return Config(**fields)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Returns a config with other values: "model.layers=3", "model.scales=8,16", "seed=1".

    Booleans are true or false. A tuple may have parentheses, and its words quotation marks. The
    errors are those of `from_config_dict`.
    """
    values = dataclasses.asdict(config)
    for assignment in assignments:
        name, _, text = assignment.partition("=")
        _check_name(name)
        group, _, field = name.rpartition(".")
        (values[group] if group else values)[field] = _parse(text, _FIELDS[name])
    return from_config_dict(values)


def to_json(config: Config) -> str:
    """Returns `config` as JSON text, whose object `from_config_dict` takes."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field of `config` that is not a group of fields."""
    return ((name, operator.attrgetter(name)(config)) for name in _FIELDS)


def describe(name: str) -> str:
    """Returns what the docstring of its class says of the field of this dotted name."""
    group, _, field = name.rpartition(".")
    text = inspect.getdoc(_GROUPS[group] if group else Config) or ""
    (words,) = re.findall(rf"(?m)^    {field}: (.*(?:\n {{8}}.*)*)", text)
    return " ".join(words.split())


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields in which two configs differ, {dotted name: (old value, new value)}."""
    before, after = dict(leaves(old)), dict(leaves(new))
    return {name: (before[name], after[name]) for name in _FIELDS if before[name] != after[name]}


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns the one of several dotted names that is meant most likely: "lr" for learning_rate."""
    last = name.rpartition(".")[2]

    def similarity(other: str) -> tuple[float, float]:
        word = other.rpartition(".")[2]
        initials = "".join(part[:1] for part in word.split("_"))
        one, whole = (SequenceMatcher(None, *p).ratio() for p in ((last, word), (name, other)))
        return max(one if one > 0.6 else 0, last == initials), whole

    return max(names, key=similarity)


def _check_name(name: str) -> None:
    if name not in _FIELDS:
        raise UserError(f"there is no field {name}; did you mean {nearest(name, _FIELDS)}?")


def _parse(text: str, type_: Any) -> Any:
    """Returns the value of a type that a text writes, or the text, which the field then refuses."""
    if get_origin(type_) is tuple:
        words = [word.strip(" '\"") for word in text.strip(" ()[]").split(",")]
        return tuple(_parse(word, get_args(type_)[0]) for word in words if word)
    if type_ is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    try:
        return type_(text)
    except ValueError:
        return text
