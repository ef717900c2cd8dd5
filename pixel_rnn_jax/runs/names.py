"""The names of parameters, in files and in messages."""

from collections.abc import Sequence
from typing import Any

import jax

PyTree = Any


def by_name(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a tree, in its order, by paths such as "scale_0/first/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def some(names: Sequence[str], most: int) -> str:
    """Returns at most so many names for a message, and how many more there are."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
