"""What a person sees of a training run: a bar on a terminal or in a notebook, lines elsewhere."""

import contextlib
import math
import time
from collections.abc import Iterator

from pixel_rnn_jax import terminal


class Progress:
    """A bar that is drawn; elsewhere, as in a log file, a line for each record."""

    def __init__(self, step: int, steps: int, batch_size: int):
        """Starts at `step` of `steps`, each of `batch_size` images."""
        self._steps, self._batch_size = steps, batch_size
        self._bar = terminal.Bar(
            desc="training",
            initial=step,
            total=steps,
            unit="steps",
            dynamic_ncols=True,
            bar_format="{percentage:3.0f}%|{bar}| step {n_fmt}/{total_fmt}{postfix}, "
            "{remaining} left",
        )
        if step < steps:
            self.say("compiling the training step")
        # The clock starts after the first step, which includes compilation.
        self._since: float | None = None
        self._counted = 0

    def advance(self) -> None:
        """Counts one more step as done."""
        if self._since is None:
            self._since = time.perf_counter()
            self._bar.unpause()
        else:
            self._counted += 1
        self._bar.update()

    def report(self, step: int, nats: float, bits_per_dim: float | None) -> float:
        """Shows the loss; returns the images per second since the last report, NaN if unknown.

        Real values have no bits/dim.
        """
        now = time.perf_counter()
        speed, left = math.nan, ""
        text = f"{nats:.2f} nats"
        if bits_per_dim is not None:
            text += f", {bits_per_dim:.3f} bits/dim"
        if self._since is not None and self._counted:
            seconds = (now - self._since) / self._counted
            speed = self._batch_size / seconds
            text += f", {speed:.0f} images/s"
            left = f", {self._bar.format_interval((self._steps - step) * seconds)} left"
        if not self._bar.drawn:
            self.say(f"step {step}/{self._steps}: {text}{left}")
        else:
            self._bar.set_postfix_str(text)
        self._since, self._counted = now, 0
        return speed

    def say(self, text: str) -> None:
        """Prints a line that stays."""
        with self._bar.external_write_mode():
            terminal.say(text)

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Stops the clock of the images per second."""
        start = time.perf_counter()
        yield
        if self._since is not None:
            self._since += time.perf_counter() - start
            self._bar.unpause()

    def close(self) -> None:
        """Leaves the bar on the terminal as it is."""
        self._bar.close()
