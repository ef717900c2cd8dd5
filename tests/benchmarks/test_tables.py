"""The tables that benchmarks of training print, with measurements that are known or small."""

import re
import sys
from pathlib import Path

import programs
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
import comparisons
import growth
import peers

import pixel_rnn_jax as prnn
from pixel_rnn_jax import report
from pixel_rnn_jax.config import ARCHITECTURES


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


def speeds(turns, **steps):
    """Returns what stands for the timing of steps: these, but far fewer at first.

    Adds the name of each model that is timed to `turns`.
    """

    def measured(what, *words):
        assert what == "steps"
        name = next(name for name in steps if any(name in word for word in words))
        turns.append(name)
        return steps[name] / (10 if turns.count(name) == 1 else 1)

    return measured


def test_models_are_timed_in_turn_and_once(monkeypatch, tmp_path, capsys):
    turns = []
    monkeypatch.setattr(comparisons, "measured", speeds(turns, row=2000, diagonal=1000))
    runs = {"one": ["train", "row"], "two": ["train", "diagonal"]}
    for _ in range(2):
        assert comparisons.steps_of(runs, tmp_path / "new") == {"one": 2000, "two": 1000}
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "one: the time is that of 200 to 2,000 steps"
        assert turns == ["row", "diagonal"] * comparisons.ROUNDS
    with pytest.raises(SystemExit, match="of another command"):
        comparisons.steps_of({"one": ["train", "other"]}, tmp_path / "new")


def test_the_rate_that_validates_best_is_trained_for_longer(monkeypatch, tmp_path, capsys):
    logs = {0.01: "4x32", 0.02: "7x16", 0.04: "7x32"}  # Of these the second validates best.
    made = []

    def trained(workdir, config, fields, more):
        rate, steps = fields["optimizer.learning_rate"], fields["train.steps"]
        made.append((workdir.name, config, rate, steps, more))
        if rate == 0.08:
            return None  # Its loss was not finite any more.
        return report.read_run(f"docs/logs/mnist-8-minutes-{logs[rate]}", pixel_map=False)

    monkeypatch.setattr(comparisons, "trained", trained)
    monkeypatch.setattr(comparisons, "measured", speeds([], pixel=3000, row=2000, diagonal=1000))
    rates = "--rates=0.01,0.02,0.04,0.08"
    words = f"--config=mnist --minutes=20 --tune_minutes=2 {rates} --config.seed=7"
    command = ["comparisons", "architectures", f"--out={tmp_path}", *words.split()]
    monkeypatch.setattr(sys, "argv", command)
    comparisons.main()
    assert made[3:6] == [
        ("pixel_cnn-0.08", "mnist:pixel_cnn", 0.08, 300, ["--config.seed=7"]),
        ("pixel_cnn", "mnist:pixel_cnn", 0.02, 3000, ["--config.seed=7"]),
        ("row_lstm-0.01", "mnist:row_lstm", 0.01, 200, ["--config.seed=7"]),
    ]
    rows = capsys.readouterr().out.splitlines()[5:]
    assert [row.split(" | ")[0] for row in rows[4::5]] == [f"| {name}" for name in ARCHITECTURES]
    assert rows[3] == "| pixel_cnn, short, 0.08 | failed | | | | | |"
    assert len(rows) == 15 and "| 4,000 |" in rows[4] and "| 83.662 ± 0.207 |" in rows[4]


def test_scales_and_classes_have_the_same_time(monkeypatch, tmp_path, capsys):
    made, drawn = [], []

    def trained(workdir, config, fields, more):
        made.append((workdir.name, config, fields["train.steps"], fields.get("model.num_classes")))
        return report.read_run("docs/logs/digits", pixel_map=False)

    monkeypatch.setattr(comparisons, "trained", trained)
    timed = speeds([], **{"multi_scale": 400, "num_classes=10": 900, "config=digits": 1000})

    def measured(what, *words):
        if what != "drawing":
            return timed(what, *words)
        drawn.append(Path(words[0]).name)
        return len(drawn[-1])

    monkeypatch.setattr(comparisons, "measured", measured)
    words = ["comparisons", "scales", "--config=digits", "--minutes=5", f"--out={tmp_path}"]
    monkeypatch.setattr(sys, "argv", words)
    comparisons.main()
    assert made == [
        ("one-scale", "digits", 1000, None),
        ("several-scales", "digits:multi_scale", 400, None),
        ("one-scale-given-the-class", "digits", 900, 10),
    ]
    assert drawn == [name for name, *_ in made] * comparisons.ROUNDS  # In turn.
    rows = capsys.readouterr().out.splitlines()[5:]
    assert [row.split(" | ")[0] for row in rows[:3]] == [f"| {name}" for name in comparisons.SCALES]
    assert "| 80.690 ± 0.779 |" in rows[0] and not rows[3]
    assert rows[4:] == [
        "one scale: 16 images in 9.000 s",
        "several scales: 16 images in 14.000 s",
        "one scale, given the class: 16 images in 25.000 s",
    ]


@pytest.mark.slow
def test_drawing_is_timed_in_a_process_of_its_own():
    assert 0 < comparisons.measured("drawing", str(prnn.shipped.FOLDER / "digits")) < 60


@pytest.mark.slow
def test_steps_are_timed_in_a_process_of_its_own(capfd):
    words = comparisons.command_words("digits", {"train.minutes": 1}, [])
    assert 10 < comparisons.measured("steps", *words) < 1e6
    with pytest.raises(SystemExit):
        comparisons.measured("steps", *words, "--config.data.name=none.npz")
    assert "error: " in capfd.readouterr().err


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
