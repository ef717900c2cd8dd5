"""Modules with the fields of a `ModelConfig`."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

from pixel_rnn_jax.model.config import ModelConfig, check

FIELDS = "layers", "kernel", "dropout", "residual", "skip", "remat"
"""The fields of `ModelConfig` for bodies alone, but `images_per_lane`, which changes no result."""


def build(class_: Callable[..., Any], config: ModelConfig, *arguments: Any, **fields: Any) -> Any:
    """Makes a module; fields that have the names of `config`'s take their values from there.

    `class_` is the class or a partial of it, whose own arguments come before the config's. The
    layers of a `Stack` have the config's fields as well.
    """
    given = getattr(class_, "keywords", {})
    if "layer" in given:
        values = _values(given["layer"], config)
        class_ = functools.partial(class_, layer=functools.partial(given["layer"], **values))
    return class_(*arguments, **_values(class_, config), **fields)


def check_fields(config: ModelConfig, bodies: Iterable[Callable[..., Any]]) -> None:
    """Raises a `UserError` for a field that no body has, unless it has its default."""
    known: set[str] = set()
    for body in bodies:
        layer = getattr(body, "keywords", {}).get("layer")
        known |= {*_values(body, config), *(_values(layer, config) if layer else ())}
    for field in dataclasses.fields(config):
        if field.name in FIELDS and field.name not in known:
            rule = f"be {field.default}: {' and '.join(config.architectures)} has no such field"
            check(config, f"model.{field.name}", rule, getattr(config, field.name) == field.default)


def _values(class_: Any, config: ModelConfig) -> dict[str, Any]:
    """Returns the config's values for the fields of a class that a partial does not give."""
    given = {*getattr(class_, "keywords", {}), "features", "condition", "dtype"}
    own = {field.name for field in dataclasses.fields(getattr(class_, "func", class_))} - given
    return {f.name: getattr(config, f.name) for f in dataclasses.fields(config) if f.name in own}
