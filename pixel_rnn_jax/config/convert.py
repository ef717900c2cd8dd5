"""Other forms of a config: config files, `ConfigDict`, JSON and dotted names."""

import dataclasses
import difflib
import inspect
import json
import operator
import re
import runpy
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_type_hints

import ml_collections

from pixel_rnn_jax.config.checks import KINDS, check_choice, of_type
from pixel_rnn_jax.config.schema import ARCHITECTURES, CHOICES, Config
from pixel_rnn_jax.errors import UserError

PACKAGE = Path(__file__).parents[1]
# Beside the package in a checkout, inside it where it is installed.
CONFIGS = next(
    folder for folder in (PACKAGE / "configs", PACKAGE.parent / "configs") if folder.is_dir()
)
"""The folder of the configs that come with the package."""
_ATTRIBUTE = re.compile(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", re.MULTILINE)  # Of a docstring.
_GROUP = (Mapping, ml_collections.ConfigDict)


def load_config_dict(source: str) -> ml_collections.ConfigDict:
    """Runs a config file and returns a ConfigDict of every field, which flags can override.

    `get_config` may return some of the fields; the others keep their defaults. Types are checked
    here, values by `from_config_dict`.

    Args:
        source: The name of one of the `CONFIGS` or the path of a file, perhaps with an argument for
            `get_config` after a colon: "digits", "mnist:row_lstm", "configs/mnist.py".

    Raises:
        UserError: There is no such file, it defines no `get_config` or raises an error, or a field
            is unknown or has the wrong type.
    """
    # Not `config_flags.DEFINE_config_file`: it calls deprecated functions of Python, and turns an
    # error of `get_config` into the text of a traceback.
    name, _, argument = source.partition(":")
    file = CONFIGS / f"{name}.py" if name in config_names() else Path(name)
    if not file.is_file():
        names = ", ".join(config_names())
        raise UserError(f"--config={name} names no config file: give a path, or one of {names}")
    try:
        get_config = runpy.run_path(str(file)).get("get_config")
        if not callable(get_config):
            raise UserError(f"{file} is no config file: it defines no function get_config")
        if argument and not inspect.signature(get_config).parameters:
            raise UserError(f"{file} takes no argument after a colon, got {argument!r}")
        values = _flat(get_config(argument) if argument else get_config())
    except UserError:
        raise
    except Exception as error:
        raise UserError(_mistake(file, error)) from error
    config = to_config_dict(Config())
    for field, value in values.items():
        config.update_from_flattened_dict({field: of_type(value, _field_type(field), field)})
    return config


def config_names() -> list[str]:
    """Returns the names of the configs in `CONFIGS`."""
    return sorted(path.stem for path in CONFIGS.glob("[!_]*.py"))


def _mistake(file: Path, error: Exception) -> str:
    """Returns an error that a config file raises as one sentence, with its line."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename) == file
    ]
    line = f", line {lines[-1]}" if lines else ""
    # For an unknown field, ConfigDict lists all others and adds a line break.
    text = re.sub(r' Other fields present: .*}"(\\n)?', " ", str(error), flags=re.DOTALL)
    return f"{file}{line}: {type(error).__name__}: {' '.join(text.split())}"


def base_config(
    argument: str, architecture: str, scales: tuple[int, ...] = ()
) -> ml_collections.ConfigDict:
    """Returns the defaults of every field, for a config file to start from.

    Args:
        argument: What follows the colon of --config: an architecture, `multi_scale`, or both with a
            comma between them.
        architecture: The architecture unless the argument names one.
        scales: `model.scales` for the argument `multi_scale`; it is refused without them.

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
    """Returns a ConfigDict with every field of `config`."""
    return ml_collections.ConfigDict(dataclasses.asdict(config)).lock()


def from_config_dict(values: ml_collections.ConfigDict | Mapping[str, Any]) -> Config:
    """Turns a ConfigDict or nested mappings into a `Config`; absent fields keep their defaults.

    Raises:
        UserError: A field is unknown (the message suggests a similar one) or has a value of the
            wrong type, or an impossible one.
    """
    for name in _flat(values):
        _field_type(name)
    types = get_type_hints(Config)
    return Config(
        **{
            name: types[name](**value) if isinstance(value, _GROUP) else value
            for name, value in values.items()
            if name in types
        }
    )


def to_json(config: Config) -> str:
    """Returns `config` as JSON text."""
    return json.dumps(dataclasses.asdict(config), indent=2) + "\n"


def from_json(text: str) -> Config:
    """Returns the `Config` that `to_json` wrote; a field that is not in it has its default.

    Raises:
        UserError: The text is damaged or is not a config.
    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"it is not JSON ({error})") from error
    sections = [f.name for f in dataclasses.fields(Config) if dataclasses.is_dataclass(f.type)]
    if not isinstance(values, dict) or not set(sections) <= values.keys():
        raise UserError(f"it does not hold the fields {', '.join(sections)}")
    return from_config_dict(values)


def leaves(config: Config) -> Iterator[tuple[str, Any]]:
    """Yields (dotted name, value) of every field of `config` that is not a group of fields."""
    return ((name, operator.attrgetter(name)(config)) for name in _types())


def field_kind(name: str) -> str:
    """Returns in words what the field with this dotted name takes ("an integer").

    Raises:
        UserError: There is no such field, or it is a group of fields.
    """
    return KINDS[_field_type(name)]


def field_meanings() -> dict[str, str]:
    """Returns what the docstrings say of each field, by its dotted name."""
    return {
        f"{prefix}{name}": " ".join(meaning.split())
        for prefix, cls in _groups()
        for name, meaning in _ATTRIBUTE.findall(inspect.getdoc(cls) or "")
    }


def field_choices(name: str) -> tuple[str, ...]:
    """Returns the words that the field with this dotted name takes, if it takes no others."""
    return ("true", "false") if _field_type(name) is bool else CHOICES.get(name, ())


def _field_type(name: str) -> Any:
    types = _types()
    if name in types:
        return types[name]
    inside = [field for field in types if field.startswith(f"{name}.")]
    if inside:
        raise UserError(f"{name} is a group of fields; set one of them, for example {inside[0]}")
    groups = [field.name for field in dataclasses.fields(Config)]
    (nearest,) = difflib.get_close_matches(name, [*groups, *types], n=1, cutoff=0.0)
    raise UserError(f"there is no field {name} in the config; did you mean {nearest}?")


def _types() -> dict[str, Any]:
    """Returns {dotted name: type} of every field that is not a group."""
    return {
        f"{prefix}{field.name}": field.type
        for prefix, group in _groups()
        for field in dataclasses.fields(group)
        if not dataclasses.is_dataclass(field.type)
    }


def _groups() -> Iterator[tuple[str, Any]]:
    """Yields what the names of the fields of a group begin with, and its dataclass."""
    for field in dataclasses.fields(Config):
        if dataclasses.is_dataclass(field.type):
            yield f"{field.name}.", field.type
    yield "", Config


def _flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Returns {dotted name: value} of everything in nested mappings."""
    if not isinstance(values, _GROUP):
        raise UserError(f"the config must be a group of fields, got {values!r}")
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, _GROUP):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat


def changed_fields(old: Config, new: Config) -> dict[str, tuple[Any, Any]]:
    values = dict(leaves(new))
    return {name: (value, values[name]) for name, value in leaves(old) if value != values[name]}
