"""The first parameters of a run from those of another model."""

from typing import Any

import jax
import numpy as np
from etils import epath

from pixel_rnn_jax import terminal
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import load

PyTree = Any
NAMED = 6
"""Parameters that a message names at most."""


def initial_params(source: epath.PathLike, template: PyTree, *, partial: bool) -> PyTree:
    """Returns the parameters of `template`, each with the values of that name in `source`.

    Args:
        source: The workdir of a run, or an exported file.
        template: The parameters of a new model, at random.
        partial: Whether to keep those that `source` lacks or has in another shape as they are.

    Raises:
        UserError: There is no model in `source`; or it has other parameters, without `partial`, or
            none in common.
    """
    found = _by_name(jax.device_get(load(source).params))
    wanted = _by_name(template)
    missing = [name for name in wanted if name not in found]
    left_over = [name for name in found if name not in wanted]
    other = [n for n in wanted if n in found and wanted[n].shape != found[n].shape]
    differences = [
        f"{what}: {_listed(names)}"
        for what, names in (
            ("it lacks", missing),
            ("only it has", left_over),
            ("of another shape are", other),
        )
        if names
    ]
    if differences and not partial:
        raise UserError(
            f"the parameters of init_from {str(source)!r} are not those of this model ("
            f"{'; '.join(differences)}): --config.init_partial=true takes the others"
        )
    taken = wanted.keys() - set(missing) - set(other)
    if not taken:
        raise UserError(f"init_from {str(source)!r} has no parameter of this model")
    terminal.say(f"{len(taken)} of {len(wanted)} parameters are those of {source}")
    for difference in differences:
        terminal.say(difference)

    def value(path: Any, leaf: Any) -> Any:
        name = _name(path)
        return found[name].astype(leaf.dtype) if name in taken else np.asarray(leaf)

    return jax.tree_util.tree_map_with_path(value, template)


def _by_name(tree: PyTree) -> dict[str, Any]:
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more
