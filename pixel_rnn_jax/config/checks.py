"""Checks of the fields of a config, and what each kind of field takes."""

import dataclasses
import math
import numbers
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


def check_types(config: Any, section: str) -> None:
    """Checks every field against its annotation; NumPy numbers and lists become Python's own."""
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        name = f"{section}.{field.name}" if section else field.name
        try:
            # The dataclass is frozen for its users; this is still part of its construction.
            object.__setattr__(config, field.name, _converted(value, field.type))
        except TypeError:
            kind = KINDS.get(field.type) or f"a {field.type.__name__}"  # type: ignore[union-attr]
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


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is none of the choices."""
    if value not in choices:
        options = ", ".join(f'"{choice}"' for choice in choices)
        raise UserError(f'{name} must be one of {options}, got "{value}"')


def check_least(name: str, value: float, least: int) -> None:
    """Refuses a value below the least one."""
    if value < least:
        raise UserError(f"{name} must be at least {least}, got {value}")


def check_kernel(name: str, value: int) -> None:
    """Refuses the side of a kernel that has no middle, or is 1."""
    if value < 3 or value % 2 == 0:
        raise UserError(f"{name} must be odd and at least 3, got {value}")
