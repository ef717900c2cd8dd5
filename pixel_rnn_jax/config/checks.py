"""Checks of the fields of a config. Every error message names the field."""

import dataclasses
import math
import numbers
from collections.abc import Mapping
from typing import Any

from pixel_rnn_jax.errors import UserError

KINDS: dict[Any, str] = {
    int: "an integer",
    float: "a finite number",
    bool: "true or false",
    str: "text",
    tuple[int, ...]: "a tuple of integers",
    tuple[float, ...]: "a tuple of finite numbers",
    tuple[str, ...]: "a tuple of words",
}
"""What a field of each type takes, in words."""


def check_types(config: Any, section: str) -> None:
    """Checks the type of every field; NumPy numbers and lists become Python's own types."""
    for field in dataclasses.fields(config):
        name = f"{section}.{field.name}" if section else field.name
        value = of_type(getattr(config, field.name), field.type, name)
        # Still part of the construction of the frozen dataclass.
        object.__setattr__(config, field.name, value)


def of_type(value: Any, type_: Any, name: str) -> Any:
    """Returns `value` converted to a field's type, if the conversion keeps its value."""
    try:
        return _converted(value, type_)
    except TypeError:
        kind = KINDS.get(type_) or f"a {type_.__name__}"
        raise UserError(f"{name} must be {kind}, got {value!r}") from None


def _converted(value: Any, type_: Any) -> Any:
    if type_ in (tuple[int, ...], tuple[float, ...], tuple[str, ...]):
        if isinstance(value, (tuple, list)):
            return tuple(_converted(item, type_.__args__[0]) for item in value)
    elif type_ is int:
        if isinstance(value, numbers.Integral) and not isinstance(value, bool):
            return int(value)
    elif type_ is float:
        if isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value):
            return float(value)
    elif isinstance(value, type_):
        return value
    raise TypeError


def check(config: Any, name: str, requirement: str, ok: bool) -> None:
    """Raises "NAME must REQUIREMENT, got VALUE" unless `ok`, for a field by its dotted name."""
    if not ok:
        value = getattr(config, name.rpartition(".")[2])
        raise UserError(f"{name} must {requirement}, got {value!r}")


def check_least(config: Any, least: int, *names: str) -> None:
    """Checks that no field of a group, given by its dotted name, is below `least`."""
    for name in names:
        value = getattr(config, name.rpartition(".")[2])
        check(config, name, f"be at least {least}", value >= least)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Checks that a value is one of the choices."""
    if value not in choices:
        options = ", ".join(f'"{choice}"' for choice in choices)
        raise UserError(f'{name} must be one of {options}, got "{value}"')


def check_choices(config: Any, group: str, choices: Mapping[str, tuple[str, ...]]) -> None:
    """Checks every field of a group that has choices, {dotted name: choices}."""
    for name, words in choices.items():
        if name.startswith(f"{group}."):
            check_choice(name, getattr(config, name.removeprefix(f"{group}.")), words)
