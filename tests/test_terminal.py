"""What a command tells on the terminal."""

import io

import tqdm

from pixel_rnn_jax.terminal import show_time


class Result:
    """Of a computation that is ready after some time."""

    asked = 0

    def is_ready(self):
        self.asked += 1
        return self.asked > 12


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_terminal_shows_that_time_passes():
    result, terminal = Result(), Terminal()
    with tqdm.tqdm(total=1, disable=None, file=terminal) as progress:
        before = terminal.getvalue().count("0/1")
        show_time(progress, [result])
        assert terminal.getvalue().count("0/1") > before + 3
    assert result.asked == 13
    elsewhere = Result()
    show_time(tqdm.tqdm(disable=True), [elsewhere])
    assert elsewhere.asked == 0
