"""How a command starts: the devices, the compiled programs, and what it prints."""

import functools

from pixel_rnn_jax import installation, terminal
from pixel_rnn_jax.cli import interrupts
from pixel_rnn_jax.runtime import compilation, devices


def run(command: functools.partial[None]) -> None:
    """Runs the function of a verb on its flags."""
    (values,) = command.args
    installation.name_extras()
    devices.set_up_host_devices()
    compilation.keep_programs(values.compilation_cache)
    interrupts.raise_again()
    as_json, out = "json" in values and values.json, "out" in values and values.out
    with terminal.printing(quiet=values.quiet, as_json=as_json, out=out or ""):
        command()
