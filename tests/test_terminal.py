"""A bar on a terminal shows that time passes."""

import io

import tqdm

from pixel_rnn_jax.terminal import show_time


class Result:
    """Is ready when it is asked the twelfth time."""

    asked = 0

    def is_ready(self):
        self.asked += 1
        return self.asked > 11


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_that_time_passes():
    result, elsewhere, terminal = Result(), Result(), Terminal()
    with tqdm.tqdm(total=1, disable=None, file=terminal) as progress:
        before = terminal.getvalue().count("0/1")
        show_time(progress, [result])
        assert terminal.getvalue().count("0/1") > before + 3
    show_time(tqdm.tqdm(disable=True), [elsewhere])
    assert (result.asked, elsewhere.asked) == (12, 0)
