"""A batch computed in parts, one after another, so that the maps of a part stay in the caches."""

from collections.abc import Callable
from typing import Any

import jax
from jax import Array

PyTree = Any


def in_parts(function: Callable[..., Array], number: int, params: PyTree, *rows: PyTree) -> Array:
    """Calls `function(params, *rows)`, of one result per row, for a part of the rows at a time.

    Derivatives are those of the whole batch at once: in parts, all that the backward pass needs
    would be copied once more.
    """
    if number == 1:
        return function(params, *rows)

    @jax.custom_jvp
    def evaluate(params: PyTree, *rows: PyTree) -> Array:
        parts = jax.tree.map(lambda x: x.reshape(number, -1, *x.shape[1:]), rows)
        results = jax.lax.map(lambda part: function(params, *part), parts)
        return results.reshape(-1, *results.shape[2:])

    @evaluate.defjvp
    def at_once(primals: Any, tangents: Any) -> Any:
        return jax.jvp(function, primals, tangents)

    return evaluate(params, *rows)
