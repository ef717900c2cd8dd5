"""The verb `report`."""

from pixel_rnn_jax import outputs
from pixel_rnn_jax import report as report_lib
from pixel_rnn_jax.cli.flags import Flags
from pixel_rnn_jax.terminal import counted, show


def report(values: Flags) -> None:
    """Writes a page about runs, side by side: configs, curves, results and pictures."""
    out = values.out
    outputs.check_file(out, ".html", "a report")
    report_lib.check_extra()
    runs = [
        report_lib.read_run(workdir, pixel_map=values.maps)
        for workdir in dict.fromkeys(values.workdir)
    ]
    content = report_lib.render(runs).encode(errors="replace")  # A path may be no text.
    with outputs.writing(out) as file:
        file.write(content)
    show(f"{out}: {counted(len(runs), 'run')}, {len(content) / 1e3:,.0f} kB")
