"""How a command ends: its exit status, and what a signal leaves."""

import os
import signal
import subprocess
import sys

import pytest
from helpers import programs
from helpers.workdirs import saved_steps

import pixel_rnn_jax as prnn
from pixel_rnn_jax.main import COMMANDS


@pytest.mark.parametrize(
    "ending, status, error",
    [
        (prnn.UserError("no such thing"), 2, "error: no such thing\n"),
        (OSError(28, "No space left on device", "a"), 2, "error: [Errno 28]"),
        (FileNotFoundError(2, "No such file", "a"), 2, "error: a: no such file\n"),
        (OSError(116, "Stale file handle", "a"), 1, "error: [Errno 116]"),
        (FileNotFoundError("gs://a/b"), 2, "error: gs://a/b"),
        (ConnectionResetError("reset"), 1, "error: reset"),
        (TimeoutError("late"), 1, "error: late"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(143), 143, ""),  # After a signal, while a model was trained.
    ],
)
def test_exit_status(cli, monkeypatch, ending, status, error):
    def fail(arguments):
        """Fails."""
        raise ending

    monkeypatch.setitem(COMMANDS, "info", (fail, COMMANDS["info"][1]))
    ended, _, err = cli("info a.prnn")
    assert ended == status and err.startswith(error) and err.count("\n") == bool(error)


def test_a_reader_that_ends_is_no_error():
    file = next((programs.ROOT / "tests/codec/files").glob("*.prnn"))
    command = [*programs.MAIN, "info", str(file)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (141, b"")


@pytest.mark.slow
@pytest.mark.parametrize("number, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_training_that_goes_on_later(tmp_path, compilation_cache, number, status):
    environment = programs.environment(compilation_cache)
    words = programs.train_words(tmp_path, train__steps=10**6, train__log_every=1)
    command = [*programs.MAIN, *words]
    # A program in the background would ignore Ctrl-C.
    command = [
        sys.executable,
        "-c",
        "import signal, os, sys; signal.signal(signal.SIGINT, "
        "signal.default_int_handler); os.execv(sys.argv[1], sys.argv[1:])",
        *command,
    ]
    with subprocess.Popen(
        command, cwd=programs.ROOT, env=environment, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("step "):
                break
        os.kill(process.pid, number)
        rest = process.stderr.read()
        assert process.wait(60) == status, rest
    assert signal.Signals(number).name in rest
    steps = max(saved_steps(tmp_path))
    words = [*programs.MAIN, f"--workdir={tmp_path}", f"--config.train.steps={steps}"]
    assert f"step {steps}:" in programs.run(*words, env=environment).stdout
