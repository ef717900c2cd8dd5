"""The verb `export`."""

import jax

from pixel_rnn_jax import image_model
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.codec.identity import model_digest
from pixel_rnn_jax.paths import expanded
from pixel_rnn_jax.runs.export import write
from pixel_rnn_jax.terminal import show_file


def export(values: Flags) -> None:
    """Writes the trained model to one file, which needs no workdir."""
    out = values.out
    model = image_model.load(values.workdir)
    size = write(expanded(out), model.pixel_rnn, model.params, model.class_names)
    count = sum(x.size for x in jax.tree.leaves(model.params))
    digest = model_digest(model.pixel_rnn, model.params).hex()
    show_file(out, f"{size:,} bytes, {count:,} parameters, digest {digest}")
