"""The verb `export`."""

import jax
from etils import epath

from pixel_rnn_jax import image_model
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.codec.identity import model_digest
from pixel_rnn_jax.terminal import show_file


def export(values: Flags) -> None:
    """Writes the trained model to one file, which needs no workdir."""
    out = values.out
    model = image_model.load(values.workdir)
    model.save(out)
    size, count = epath.Path(out).stat().length, sum(x.size for x in jax.tree.leaves(model.params))
    digest = model_digest(model.pixel_rnn, model.params).hex()
    show_file(out, f"{size:,} bytes, {count:,} parameters, digest {digest}")
