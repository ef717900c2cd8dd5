"""Other forms of a config: config files, `ConfigDict`, JSON and dotted names."""

import dataclasses
import difflib
import inspect
import json
import runpy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_collections

from pixel_rnn_jax.config.checks import KINDS, check_choice
from pixel_rnn_jax.config.schema import ARCHITECTURES, Config
from pixel_rnn_jax.errors import UserError

PACKAGE = Path(__file__).parents[1]
# Beside the package in a checkout, inside it where it is installed.
CONFIGS = next(
    folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()
)
"""The folder of the configs that come with the package."""


def load_config_dict(source: str) -> ml_collections.ConfigDict:
    """Runs a config file and returns what it gives, with the default of every other field.

    Args:
        source: NAME or FILE, with an argument for `get_config` after a colon: "digits",
            "mnist:row_lstm", "configs/mnist.py". A NAME is one of the configs in `CONFIGS`.

    Raises:
        UserError: There is no such file, it is no config file, or a field is unknown or of another
            type.
    """
    # `config_flags.DEFINE_config_file` loads by a call that Python has deprecated, and turns an
    # error of `get_config` into the text of a traceback.
    name, _, argument = source.partition(":")
    file = config_file(name)
    get_config = runpy.run_path(str(file)).get("get_config")
    if not callable(get_config):
        raise UserError(f"{file} is no config file: it defines no function get_config")
    if argument and not inspect.signature(get_config).parameters:
        raise UserError(f"{file} takes no argument after a colon, got {argument!r}")
    config = to_config_dict(Config())
    for field, value in _flat(get_config(argument) if argument else get_config()):
        kind = field_kind(field)
        try:
            config.update_from_flattened_dict({field: value})
        except TypeError:
            raise UserError(f"{field} must be {kind}, got {value!r}") from None
    return config


def config_file(name: str) -> Path:
    """Returns the path of a config file: one of `CONFIGS` for a name without a slash or ending.

    Raises:
        UserError: There is no such file.
    """
    path = Path(name)
    shipped = path.suffix != ".py" and path.name == name
    file = CONFIGS / f"{name}.py" if shipped else path
    if not file.is_file():
        names = ", ".join(sorted(path.stem for path in CONFIGS.glob("[!_]*.py")))
        raise UserError(f"--config={name} names no config file: give a path, or one of {names}")
    return file


def base_config(
    argument: str, architecture: str, scales: tuple[int, ...] = ()
) -> ml_collections.ConfigDict:
    """Returns the config that a config file starts from, with every field.

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
        check_choice("what stands after the colon of --config", word, choices)
    named = [word for word in words if word in ARCHITECTURES]
    if len(named) > 1:
        raise UserError(f"--config takes one architecture after the colon, got {argument!r}")
    config = to_config_dict(Config())
    config.model.architecture = named[0] if named else architecture
    config.model.scales = scales if "multi_scale" in words else ()
    return config


def to_config_dict(config: Config) -> ml_collections.ConfigDict:
    """Returns a ConfigDict with every field of `config`, so that flags can override each."""
    return ml_collections.ConfigDict(dataclasses.asdict(config)).lock()


def from_config_dict(values: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
    """Turns a ConfigDict or nested mappings into a checked `Config`.

    Absent fields keep their defaults.

    Raises:
        UserError: A field is unknown (the message names the nearest one that exists), has a value
            of another type, or an impossible value.
    """
    arguments: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in _flat(values):
        field_kind(name)
        group, _, field = name.rpartition(".")
        (groups.setdefault(group, {}) if group else arguments)[field] = value
    types: dict[str, Any] = {field.name: field.type for field in dataclasses.fields(Config)}
    return Config(**arguments, **{group: types[group](**own) for group, own in groups.items()})


def to_json(config: Config) -> str:
    """Returns `config` as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Returns the `Config` that `to_json` wrote; fields that have been added have their defaults.

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


def leaves(config: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field of `config` that is not a group of fields."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            yield from leaves(value, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, value


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
    groups = [field.name for field in dataclasses.fields(Config)]
    (nearest,) = difflib.get_close_matches(name, [*groups, *kinds], n=1, cutoff=0.0)
    raise UserError(f"there is no field {name} in the config; did you mean {nearest}?")


def _kinds(cls: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yields (dotted name, what it takes in words) of every field that is not a group."""
    for field in dataclasses.fields(cls):
        if dataclasses.is_dataclass(field.type):
            yield from _kinds(field.type, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name, KINDS[field.type]


def _flat(values: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of everything in nested mappings."""
    if not isinstance(values, (Mapping, ml_collections.ConfigDict)):
        raise UserError(f"the config must be a group of fields, got {values!r}")
    for name, value in values.items():
        if isinstance(value, (Mapping, ml_collections.ConfigDict)):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
