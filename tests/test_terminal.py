"""A bar on a terminal shows that time passes, and a line that cannot be printed stops nothing."""

import io
import os
import sys

import pytest
import tqdm

from pixel_rnn_jax.terminal import lost_lines, say, show_time


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


def test_characters_that_a_terminal_lacks(monkeypatch):
    for encoding, shown in (("ascii", "1 +- 2 ?"), ("latin1", "1 +- 2 ?"), ("utf-8", "1 ± 2 …")):
        monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
        say("1 ± 2 …")
        assert sys.stdout.buffer.getvalue().decode(encoding) == f"{shown}\n"
    assert not lost_lines()


def full_disk():
    return open("/dev/full", "w")


def broken_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


@pytest.mark.parametrize("broken", [full_disk, broken_pipe])
def test_an_output_that_cannot_be_written(monkeypatch, capsys, broken):
    with broken() as file:
        monkeypatch.setattr(sys, "stdout", file)
        say("lost")
        say("lost as well")
        assert lost_lines() and not lost_lines()
    assert capsys.readouterr().err.startswith("error: nothing can be printed any more (")
