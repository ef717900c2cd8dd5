"""Trees of arrays by the names of their leaves: their types, and their digest."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from pixel_rnn_jax.system.errors import UserError

PyTree = Any


def by_name(tree: PyTree) -> dict[str, Any]:
    """Returns the leaves of a tree, in its order, by paths such as "scale_0/first/kernel"."""
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def sha256(arrays: Mapping[str, np.ndarray], digest: Any = None) -> str:
    """Returns the SHA-256 of arrays with their names, types and shapes, added to a `digest`."""
    digest = hashlib.sha256() if digest is None else digest
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype.name} {list(array.shape)}\n".encode())
        digest.update(np.ascontiguousarray(array.astype(array.dtype.newbyteorder("<"))).tobytes())
    return digest.hexdigest()


def types_of(arrays: Mapping[str, Any]) -> dict[str, str]:
    """Returns the type and the shape of each array, as "float32[7, 5]"."""
    return {name: f"{np.dtype(x.dtype).name}{list(x.shape)}" for name, x in arrays.items()}


def check_same_types(where: str, expected: Mapping[str, str], stored: Mapping[str, str]) -> None:
    """Raises `UserError` with the first array that has another name, type or shape: `types_of`."""
    for name in sorted(expected.keys() | stored.keys()):
        here, there = expected.get(name, "absent"), stored.get(name, "absent")
        if here != there:
            raise UserError(f"{where}: {name} is {there}, but {here} for this model and optimiser")
