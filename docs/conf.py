"""The site of the documentation: `bash launch/docs.sh` builds it, without the network."""

from pathlib import Path

import mathjax  # The package django-static-mathjax, which is MathJax's files.
from jax.typing import ArrayLike
from sphinx.util.typing import stringify_annotation

import pixel_rnn_jax

project = "pixel-rnn-jax"
author = "The pixel-rnn-jax authors"
release = version = pixel_rnn_jax.__version__

extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
autodoc_mock_imports = ["netket"]

# Markdown, and notebooks with the outputs that they have.
myst_heading_anchors = 3
myst_enable_extensions = ["dollarmath"]
nb_execution_mode = "off"

# Formulas show without the network. This file has all that is needed of the package.
mathjax_path = "tex-svg.js"
mathjax_file = Path(mathjax.__file__).parent / "static/mathjax/es5" / mathjax_path
html_static_path = [str(mathjax_file), "style.css"]
html_css_files = ["style.css"]

# Docstrings, in which a word in backticks is code.
default_role = "code"
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_numpy_docstring = False
# Names of inner modules, which docstrings use, need no page here.
nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!pixel_rnn_jax\.\w+$).*")]

html_theme = "furo"
html_title = "pixel-rnn-jax"
html_show_copyright = False
html_show_sourcelink = False


def short_signature(app, what, name, obj, options, signature, returned):
    """Writes ArrayLike where autodoc has written out the union that it stands for."""
    union = stringify_annotation(ArrayLike, "smart")
    return signature and signature.replace(union, "ArrayLike"), returned


def setup(app):
    """Called by Sphinx."""
    app.connect("autodoc-process-signature", short_signature)
