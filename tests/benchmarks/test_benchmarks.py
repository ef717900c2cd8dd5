"""Every benchmark runs at a small size and prints its table; what some of them compute is known."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import accelerator
import comparisons
import ising
import numpy as np
import peers
import pytest
import speed
import timing
from flax import serialization
from helpers.programs import environment

from pixel_rnn_jax.model import kernels
from pixel_rnn_jax.model.kernels import linear
from pixel_rnn_jax.system import devices

SMALL = "--layers=1 --features=4 --head_features=4 --side=4 --batch=2"
QUICK = "--rounds=1 --seconds=0"
RUNS = (
    "--config=digits --minutes=1e-4 --config.model.layers=1 --config.model.features=4 "
    "--config.model.head_features=4 --config.optimizer.warmup_steps=0"
)
COMMANDS = [  # A benchmark, its arguments, a pattern of what it prints, and the number of matches.
    ("accelerator", f"cifar10:row {SMALL} --matmul=16 {QUICK}", r"^cifar10:row_lstm, .*%", 1),
    ("codec", f"--model=digits --split=test[:2] {QUICK}", r"^this model .*of it$", 2),
    ("grow", "digits --out=OUT --config.model.layers=3", "become", 1),
    ("ising", "--side=3 --out=OUT", r"^entropy: .* nats", 1),
    ("peers", f"row_lstm --peer=torchlake {QUICK}", r"ours .*\(1x\)|left out: .*torch", 2),
    ("wave_functions", "4 --seconds=0", r" s a step .* per spin, exact -3\.21551", 6),
    ("speed", f"1 {SMALL} {QUICK}", r"\dx plain \(", 2),
    (
        "comparisons",
        f"architectures {RUNS} {QUICK} --out=OUT --tune_minutes=5e-5 --rates=1e-3",
        r"^\| pixel_cnn(, short, 0.001 \| 0.001| \| 0.00071) \|.* ± .* ± ",
        2,
    ),
    ("comparisons", f"scales {RUNS} {QUICK} --out=OUT", r"^\| .* ± .* ± ", 3),
]


class InProcess:
    """Builds in this process what a worker would build in its own."""

    def __init__(self, script, python=sys.executable, **options):
        build = importlib.import_module(Path(script).stem).build
        self.timers, self.facts = build(**json.loads(json.dumps(options)))

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("name, words, pattern, count", COMMANDS)
def test_runs_at_a_small_size(
    name, words, pattern, count, tmp_path, capsys, monkeypatch, compilation_cache
):
    for variable, value in environment(compilation_cache).items():
        monkeypatch.setenv(variable, value)  # For the workers of wave functions.
    for module in (speed, peers):
        monkeypatch.setattr(module, "Worker", InProcess)
    monkeypatch.setattr(kernels, "conv_lstm", kernels.conv_lstm)  # Which `plain` replaces.
    monkeypatch.setattr(linear, "sweep", linear.sweep)
    monkeypatch.setattr(devices, "set_up_host_devices", lambda: None)
    monkeypatch.setattr(speed, "SIZES", {"1": speed.SIZES["row_lstm, 7 layers, h=16, 28x28x1"]})
    monkeypatch.setattr(accelerator, "DTYPES", ("float32",))
    monkeypatch.setattr(comparisons, "BODIES", ("pixel_cnn",))
    monkeypatch.setattr(peers, "SIDE", 4)
    monkeypatch.setattr(peers, "LAYERS", 1)
    main = importlib.import_module(name).main
    main(words.replace("OUT", str(tmp_path / "out.npz")).split())
    printed = capsys.readouterr().out
    assert len(re.findall(pattern, printed, re.MULTILINE)) == count, printed


@pytest.mark.slow
def test_growth_goes_on_where_it_stopped(tmp_path, compilation_cache):
    """An error ends the first run after 20 of 40 steps; the second run takes the others."""
    program = (
        "import heisenberg as h; h.SAMPLES = 64; h.LOWEST = {}; "
        "h.STAGES = [(4, {}, 16, 0.02, ()), (6, 20, 4, 0.02, ('flip',))]; "
        "h.CONFIG = h.prnn.ModelConfig('pixel_cnn', 1, 4, head_features=4); h.main([{!r}])"
    )
    printed, record = [], tmp_path / "record"
    for lowest, steps in ({}, 20), ({4: -1, 6: -1}, 40):
        command = [sys.executable, "-c", program.format(lowest, steps, str(record))]
        options = dict(cwd=Path(timing.__file__).parent, env=environment(compilation_cache))
        run = subprocess.run(command, capture_output=True, text=True, **options)
        printed.append(re.findall(r"^(\dx\d.*?):", run.stdout, re.MULTILINE))
    assert printed == [["4x4,    20"], ["4x4,    40", "4x4", "6x6,    20", "6x6"]]
    saved = serialization.msgpack_restore(record.read_bytes())
    assert saved["stage"] == 2 and {"4x4", "6x6"} < saved.keys()


def test_what_is_timed_has_its_turn_in_each_round():
    turns = []

    def timer(name, seconds):
        return lambda: turns.append(name) or seconds[turns.count(name) - 1]

    medians = timing.in_turn({"a": timer("a", [1, 9, 2]), "b": timer("b", [5, 4, 3])}, rounds=3)
    assert turns == ["a", "b"] * 3 and medians == {"a": 2, "b": 4}


@pytest.mark.slow
def test_workers_measure_in_a_process_of_their_own():
    size = speed.MNIST | {"architecture": "row_lstm", "layers": 1, "features": 4}
    with timing.Worker(speed.__file__, size=size, batch=2, is_plain=True, seconds=0) as worker:
        assert 0 < worker.timers["step"]() < 60 and worker.facts["megabytes"] > 0


@pytest.mark.parametrize("height, width", [(3, 3), (3, 4)])
def test_draws_and_entropy_of_spins(height, width):
    sites, beta = height * width, 0.4
    states = np.arange(2**sites)[:, None] >> np.arange(sites) & 1
    spins = (2.0 * states - 1).reshape(-1, height, width)
    bonds = sum((spins * np.roll(spins, 1, axis)).sum((1, 2)) for axis in (1, 2))
    chances = np.exp(beta * bonds)
    chances /= chances.sum()
    entropy = ising.entropy(height, width, beta)
    assert entropy == pytest.approx(-(chances @ np.log(chances)), abs=1e-6)

    count = 100_000
    images = ising.draw(count, height, width, beta, np.random.default_rng(0))
    assert images.shape == (count, height, width, 1) and images.dtype == np.uint8
    nats = ising.nats(states.reshape(-1, height, width, 1), beta)
    np.testing.assert_allclose(nats, -np.log(chances))
    numbers = images.reshape(count, sites) @ (1 << np.arange(sites))
    drawn = np.bincount(numbers, minlength=2**sites)
    # Chi-squared: its mean is the number of states - 1, its deviation the root of twice that.
    squares = ((drawn - count * chances) ** 2 / (count * chances)).sum()
    assert abs(squares - 2**sites) < 5 * (2 * 2**sites) ** 0.5
