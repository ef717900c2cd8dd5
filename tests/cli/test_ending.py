"""How a command ends: its exit status, and what is left when it cannot go on."""

import fcntl
import subprocess
import sys
import termios
import time
from unittest.mock import ANY, Mock, call

import programs
import pytest
from programs import train_words

import pixel_rnn_jax as prnn
from pixel_rnn_jax.cli import evaluate
from pixel_rnn_jax.cli.parse import VERBS
from pixel_rnn_jax.main import main
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.terminal import say
from pixel_rnn_jax.training import train

DIGITS = "--config=digits"


def test_devices_are_set_up_before_a_command_runs(monkeypatch):
    calls = Mock()
    calls.evaluate.side_effect = ZeroDivisionError  # Other errors keep their traceback.
    monkeypatch.setattr(devices, "set_up_host_devices", calls.devices)
    monkeypatch.setattr(evaluate, "open_run", calls.evaluate)
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", "--workdir=somewhere"])
    assert calls.mock_calls == [call.devices(), call.evaluate("somewhere", ANY)]


OUT = "error: out of memory: ask for fewer images or particles, or a smaller batch"


def test_exit_status(run, capsys, monkeypatch):
    for ending, status, error in [
        (prnn.UserError("no such thing: do that"), 2, "error: no such thing: do that\n"),
        (KeyboardInterrupt(), 130, ""),
        (MemoryError("10 GiB"), 2, f"{OUT} (10 GiB)\n"),
        (RuntimeError("RESOURCE_EXHAUSTED: No. a"), 2, f"{OUT} (RESOURCE_EXHAUSTED: No)\n"),
        (SystemExit(0), 0, ""),
    ]:
        monkeypatch.setattr(train, "train", Mock(side_effect=ending))
        assert run(DIGITS) == status
        assert capsys.readouterr().err == error
    monkeypatch.setattr(train, "train", Mock(side_effect=SystemExit(143)))  # After a signal.
    with pytest.raises(SystemExit, match="143"):
        run(DIGITS)


def test_exit_status_when_nothing_can_be_printed(run, monkeypatch):
    monkeypatch.setattr(VERBS["train"]._module, "train", lambda values: say("results"))
    assert run(DIGITS) == 0
    with open("/dev/full", "w") as full:
        monkeypatch.setattr("sys.stdout", full)
        assert run(DIGITS) == 2


CTRL_C = """
import signal, sys

class Finder:
    def find_spec(name, *rest):
        if name == "IMPORTED":
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder)
from pixel_rnn_jax.main import run
run()
"""


@pytest.mark.parametrize("imported", ["ml_collections", "jaxlib", "optax"])
def test_ctrl_c_during_imports(imported, tmp_path):
    code = CTRL_C.replace("IMPORTED", imported)
    words = ["-c", code, "--config=digits", f"--workdir={tmp_path}"]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_exit_status_after_sigterm():
    """Of a verb that has nothing to save; a shell reports 143."""
    words = [sys.executable, "-m", "pixel_rnn_jax.main", "info", "-"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, bufsize=0) as process:
        process.stdin.write(b"p")
        while any(fcntl.ioctl(process.stdin, termios.FIONREAD, bytes(4))):  # Until it reads.
            assert process.poll() is None
            time.sleep(0.05)
        process.terminate()
        assert 128 - process.wait(60) == 143


def test_exit_status_of_the_process(tmp_path):
    words, environment = train_words(tmp_path / "a"), programs.environment({"JAX_PLATFORMS": "no"})
    error = programs.run(*programs.MAIN, *words, status=2, env=environment).stderr
    assert error.startswith("error: JAX has no device of JAX_PLATFORMS=no: unset it, or install ")
    assert error.count("\n") == 1 and not list(tmp_path.iterdir())


def test_devices_that_jax_finds_and_cannot_use(monkeypatch, capsys):
    error = RuntimeError("Unable to initialize backend 'cuda': INTERNAL: no device")  # JAX's words.
    monkeypatch.delenv("JAX_PLATFORMS", raising=False)
    monkeypatch.setattr(devices, "set_up_host_devices", Mock())
    monkeypatch.setattr(evaluate, "open_run", Mock(side_effect=error))
    assert main(["evaluate", "--workdir=somewhere"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "put JAX_PLATFORMS=cpu in the environment" in said


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["completion", "bash"]])
def test_what_cannot_be_printed_at_all(words):
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "pixel_rnn_jax.main", *words]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr == "error: nothing can be printed (No space left on device)\n"
