"""A bar shows that time passes, and a line that cannot be printed stops nothing."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import sys
import termios
import time

import pytest

from pixel_rnn_jax.terminal import Bar, bar, lost_lines, say


@contextlib.contextmanager
def screen(monkeypatch, columns=80):
    """Makes standard error a terminal; yields a function that reads what it shows."""
    reader, writer = pty.openpty()
    fcntl.ioctl(writer, termios.TIOCSWINSZ, struct.pack("4H", 24 * (columns > 0), columns, 0, 0))
    with open(writer, "w") as file, open(reader, "rb", buffering=0) as shown:
        monkeypatch.setattr(sys, "stderr", file)
        yield lambda: shown.read(10_000).decode()


def test_a_terminal_shows_that_time_passes(monkeypatch):
    with screen(monkeypatch) as read:
        with contextlib.closing(Bar(total=3, desc="drawing", unit="batches")):
            time.sleep(1.2)
        assert read().count("0/3") >= 3


def test_a_short_bar_is_not_seen(monkeypatch):
    with screen(monkeypatch) as read:
        assert list(bar("ab", 2, "drawing", "batches")) == ["a", "b"]
        print("end", file=sys.stderr, flush=True)
        assert read() == "end\r\n"


def test_no_item_counts_twice_while_time_is_shown():
    """The bar is shown, by its thread, less than `mininterval` before an item is done."""
    progress, counts = Bar(range(4), total=4, mininterval=0.7), []
    for _ in progress:
        counts.append(progress.n)
        time.sleep(0.75)
    assert progress.n == 4 and all(count <= done for done, count in enumerate(counts))


def test_elsewhere_a_line_breaks_a_silence(monkeypatch, capsys):
    """Of what is done inside, unless something else was printed."""
    monkeypatch.setattr("pixel_rnn_jax.terminal.SILENCE", 1.0)
    say("begin")
    with contextlib.closing(Bar(total=2000, desc="training", unit="steps", initial=1200)) as outer:
        time.sleep(0.7)
        assert capsys.readouterr() == ("begin\n", "")
        for seconds in Bar((0.6, 1.2), total=2, desc="evaluating", unit="batches"):
            time.sleep(seconds)
        outer.update(34)
        time.sleep(1.6)
    lines = capsys.readouterr().err.splitlines()
    assert any(re.fullmatch("evaluating: 1 of 2 batches, 00:01", line) for line in lines)
    assert len(lines) < 7 and re.fullmatch("training: 1,234 of 2,000 steps, 00:0.", lines[-1])
    time.sleep(1.2)
    assert not capsys.readouterr().err


def test_a_terminal_without_columns_gets_lines(monkeypatch):
    with screen(monkeypatch, columns=0), contextlib.closing(Bar(total=3)) as progress:
        assert not progress.drawn


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
