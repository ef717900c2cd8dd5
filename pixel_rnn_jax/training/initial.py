"""The first parameters of a run from those of another model."""

from typing import Any

import jax
import numpy as np
from etils import epath

from pixel_rnn_jax import terminal
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.image_model import load
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.names import by_name, some

PyTree = Any
NAMED = 6
"""Parameters that a message names at most."""


def check_initial(source: epath.PathLike, model: PixelRNN, *, partial: bool) -> None:
    """Raises as `initial_params`, without making any parameters."""
    _compared(source, jax.eval_shape(model.init, jax.random.key(0)), partial=partial)


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
    found, differences = _compared(source, template, partial=partial)
    wanted = by_name(template)
    terminal.say(f"{len(found)} of {len(wanted)} parameters are those of {source}")
    for difference in differences:
        terminal.say(difference)

    values = [
        found[name].astype(leaf.dtype) if name in found else np.asarray(leaf)
        for name, leaf in wanted.items()
    ]
    return jax.tree.unflatten(jax.tree.structure(template), values)


def _compared(
    source: epath.PathLike, template: PyTree, *, partial: bool
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Returns the parameters of `source` that fit, by name, and in words which do not."""
    found, wanted = by_name(jax.device_get(load(source).params)), by_name(template)
    missing = [name for name in wanted if name not in found]
    left_over = [name for name in found if name not in wanted]
    other = [n for n in wanted if n in found and wanted[n].shape != found[n].shape]
    differences = [
        f"{what}: {some(names, NAMED)}"
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
    taken = {name: found[name] for name in wanted if name not in (*missing, *other)}
    if not taken:
        raise UserError(f"init_from {str(source)!r} has no parameter of this model")
    return taken, differences
