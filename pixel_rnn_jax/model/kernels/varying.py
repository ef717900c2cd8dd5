"""The mesh axes of a `jax.shard_map` over which an array varies; JAX keeps them in its type.

A scan must be given a carry that varies over the same mesh axes as the one it returns, although it
starts from zeros or from parameters that all devices share.
"""

from typing import Any

import jax
from jax import lax

PyTree = Any


def varying_alike(tree: PyTree, like: PyTree) -> PyTree:
    """Returns a tree whose arrays vary over every mesh axis over which one of `like` varies."""
    axes = frozenset().union(*map(_axes, jax.tree.leaves(like)))
    if not axes:
        return tree
    return jax.tree.map(lambda x: lax.pcast(x, tuple(sorted(axes - _axes(x))), to="varying"), tree)


def _axes(leaf: Any) -> frozenset[str]:
    type_ = jax.typeof(leaf)
    # JAX before 0.11 calls it `vma`.
    return type_.mat.varying if hasattr(type_, "mat") else type_.vma
