"""The tables that benchmarks of training print, with measurements that are known or small."""

import re
import sys
from pathlib import Path

import programs
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import growth
import peers


@pytest.fixture
def table(monkeypatch, capsys):
    """Returns the lines that a benchmark prints, with what stands for its measurements."""

    def run(module, measured, *words):
        monkeypatch.setattr(module, "in_new_process", measured)
        monkeypatch.setattr(sys, "argv", ["benchmark", *words])
        module.main()
        return capsys.readouterr().out.splitlines()

    return run


def test_slopes_of_growth(table):
    lines = table(growth, lambda _, sizes: sizes["side"] ** 2 * sizes["batch"] ** 0.5, "row_lstm")
    slopes = {
        (varied, slope)
        for line in lines
        for varied, slope in re.findall(r"row_lstm +(\w+) .*slope ([\d.]+)", line)
    }
    assert slopes == {("side", "1.00"), ("batch", "0.50"), ("layers", "0.00")}


def test_peers_that_are_missing_are_left_out_by_name(table):
    found = dict(parameters=7, version="v", train=100.0, evaluate=40.0, sample=2.0)
    peer = dict(parameters=9, version="w", train=50.0, evaluate=80.0, sample=3.0)
    answers = {"ours": found, "torchlake": peer, "netket": {"missing": "No module named 'netket'"}}
    lines = table(
        peers,
        lambda _, candidate, *__: answers[candidate.removesuffix("_fast")],
        *("--peer=torchlake=/checkout", "--peer=netket", "pixel_cnn 7x16"),
    )
    text = "\n".join(lines)
    assert "torchlake                    9  50 (2x)         80 (0.5x)       3.000 (1.5x)" in text
    assert "pytorch_generative  left out: not named by --peer=pytorch_generative" in text
    assert "netket_fast         left out: No module named 'netket'" in text
    assert lines[-2:] == ["ours: v", "torchlake: w"]


@pytest.mark.slow
def test_accelerator_on_a_cpu(compilation_cache):
    small = "--layers=1 --features=3 --head_features=3 --batch=2 --matmul=64"
    command = [sys.executable, "benchmarks/accelerator.py", *small.split(), "cifar10:row_lstm"]
    result = programs.run(*command, env=programs.environment(compilation_cache))
    rows = [line for line in result.stdout.splitlines() if line.startswith("cifar10:row_lstm")]
    assert [row.split(",")[1].split()[0] for row in rows] == ["float32", "bfloat16"]
    for row in rows:
        step, images, share, memory, iteration, drawing = row.split()[2:]
        assert float(images) == pytest.approx(2e3 / float(step), rel=0.02)
        assert float(iteration) == pytest.approx(1e3 * float(step) / 64, rel=0.02)
        assert share.endswith("%") and float(memory) > 0 and float(drawing) > 0
