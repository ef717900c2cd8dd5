"""A page about training runs: what workdirs tell of them, curves, and the HTML of the page.

Report may import `image_model`, `training`, `runs`, `pictures`, `config`, `runtime`, `errors` and
the version in `__init__`.
The packages of the extra `report`, Jinja2 and Matplotlib, are loaded when a page is made.
"""

from pixel_rnn_jax.report.facts import RunFacts, read_run
from pixel_rnn_jax.report.page import check_extra, render

__all__ = ["RunFacts", "check_extra", "read_run", "render"]
