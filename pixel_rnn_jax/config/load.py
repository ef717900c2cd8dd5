"""Other forms of a config: config files, flags such as --config.model.layers=3, and JSON."""

import dataclasses
import json
import operator
import runpy
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from pixel_rnn_jax.config.schema import Config
from pixel_rnn_jax.errors import UserError

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = _PACKAGE / "configs", _PACKAGE.parent / "configs"  # Of a wheel, of a checkout.
CONFIGS = {path.stem: path for path in sorted(next(filter(Path.is_dir, _FOLDERS)).glob("[!_]*.py"))}
"""The config files that come with the package, by name."""
_GROUPS: dict[str, Any] = {
    f.name: f.type for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)
}
_FIELDS = [f"{name}.{f.name}" for name, group in _GROUPS.items() for f in dataclasses.fields(group)]
_FIELDS += [f.name for f in dataclasses.fields(Config) if f.name not in _GROUPS]


def load_config(source: str) -> Config:
    """Runs a config file, whose `get_config` returns some fields or all; see `from_config_dict`.

    `source` is the name of one of the `CONFIGS` or the path of a file, perhaps with an argument for
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
    config = get_config(argument) if argument else get_config()
    if not isinstance(config, (Mapping, ConfigDict)):
        raise UserError(f"get_config of --config={name} must return fields, got {config!r}")
    return from_config_dict(config)


def base_config(variant: str, architecture: str, scales: tuple[int, ...]) -> ConfigDict:
    """Returns the defaults of every field, for a config file to start from.

    The variant, which follows the colon of --config, is a name of `layers.LAYERS` instead of
    `architecture`, "multi_scale", which has the `scales`, or "".
    """
    config = ConfigDict(dataclasses.asdict(Config())).lock()
    named = variant not in ("", "multi_scale")  # It is checked where the layers are.
    config.model.architecture = variant if named else architecture
    config.model.scales = scales if variant == "multi_scale" else ()
    return config


def from_config_dict(values: ConfigDict | Mapping[str, Any]) -> Config:
    """Turns a ConfigDict or nested mappings into a `Config`; absent fields keep their defaults."""
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name in _GROUPS and isinstance(value, (Mapping, ConfigDict)):
            for field in value:
                _check_name(f"{name}.{field}")
            fields[name] = _GROUPS[name](**value)
        else:
            _check_name(name)
            fields[name] = value
    return Config(**fields)


def with_flags(
    config: Config, words: Sequence[str], flag_values: flags.FlagValues | None = None
) -> Config:
    """Returns a config with the fields that flags set, such as "--config.model.layers=3".

    A tuple may be written as 8,16. Other flags must be defined in `flag_values`, which are parsed.
    """
    values = flags.FlagValues() if flag_values is None else flag_values
    values.set_gnu_getopt(True)  # Flags may follow values that stand for themselves.
    fields = ConfigDict(dataclasses.asdict(config))
    for word in words:
        name = word.partition("=")[0].partition("config.")
        if name[0] in ("--", "--no") and name[1]:
            _check_name(name[2])
    holder = config_flags.DEFINE_config_dict(
        "config", fields, flag_values=values, sys_argv=[*words]
    )
    _, *rest = values(["", *words])
    if rest:
        raise UserError(f"there is no argument {rest[0]!r}: flags begin with --")
    return from_config_dict(holder.value)


def to_json(config: Config) -> str:
    """Returns `config` as JSON text, whose object `from_config_dict` takes."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field of `config` that is not a group of fields."""
    return ((name, operator.attrgetter(name)(config)) for name in _FIELDS)


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    """Returns the fields in which two configs differ, {dotted name: (old value, new value)}."""
    before, after = dict(leaves(old)), dict(leaves(new))
    return {name: (before[name], after[name]) for name in _FIELDS if before[name] != after[name]}


def _check_name(name: str) -> None:
    if name not in _FIELDS:
        likely = get_close_matches(name, _FIELDS, 1, 0)[0]
        raise UserError(f"there is no field config.{name}; did you mean config.{likely}?")
