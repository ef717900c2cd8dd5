"""Every notebook runs from the first cell to the last, and its numbers are the known ones."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers.programs import STRICT

ROOT = Path(__file__).parents[1]
CELLS = {
    path.stem: [cell for cell in json.loads(path.read_text())["cells"] if "outputs" in cell]
    for path in sorted(ROOT.glob("notebooks/*.ipynb"))
}
NUMBER = r"(-?[\d.]+)"


def rows_of(pattern, text, count):
    """Returns the numbers of each line that matches, by the line's first group."""
    lines = re.findall(f"^{pattern}$", text, re.MULTILINE)
    rows = {name.strip(): [*map(float, values)] for name, *values in lines}
    assert len(rows) == count, text
    return rows


def quickstart(text):
    rows = rows_of(rf"(test): {NUMBER} ± {NUMBER} nats", text, 1)
    assert 78 < rows["test"][0] < 87 and 0.4 < rows["test"][1] < 1.6
    return rows


def ising(text):
    """The exact values are those of the transfer matrix and its numerical derivatives."""
    rows = rows_of(rf"((?:variational|reweighted) .*?) +{NUMBER} +{NUMBER} ± {NUMBER}", text, 4)
    assert [exact for exact, *_ in rows.values()] == [-2.13339, -2.13339, -1.48753, 1.14895]
    for name, (exact, estimate, error) in rows.items():
        # The variational one is an upper bound, and a tight one.
        highest = exact + (1e-3 if name.startswith("variational") else 4 * error)
        assert exact - 4 * error < estimate < highest and error < 0.03
    (larger,) = rows_of(rf"(energy) per spin: {NUMBER} ± {NUMBER}, exact -1.4453", text, 1).values()
    assert -1.56 < larger[0] < -1.48 and larger[1] < 0.01
    assert float(re.search(rf"^effective sample size: {NUMBER}%", text, re.MULTILINE)[1]) > 90
    line = rf"(0\.\d{{4}}) +{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER}"
    for beta, (_, variational, reweighted, size) in rows_of(line, text, 16).items():
        highest = 2 if beta == "0.4333" else 1  # Of 1e-3 per spin; the critical point is 0.4407.
        assert abs(variational) < highest and abs(reweighted) < highest and size > 1500
    return rows


def information(text):
    """The exact values are those of Gaussian vectors, from the eigenvalues of the covariance."""
    rows = rows_of(rf" *{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER} to {NUMBER}", text, 4)
    assert [exact for exact, *_ in rows.values()] == [63.91, 32.74, 13.98, 5.16]
    for exact, estimate, low, high in rows.values():
        # Within the interval, or as far beside it as such a model is from the distribution.
        assert low - 0.2 < exact < high + 0.1 and high - low < 1.2
        assert estimate == pytest.approx(exact, rel=0.01, abs=0.2)
    line = rf"(entropy) at .* exact {NUMBER} nats, estimate {NUMBER} ± {NUMBER}"
    exact, estimate, error = rows_of(line, text, 1)["entropy"]
    assert exact == 79.19 and -3 * error < estimate - exact < 3 * error + 0.2
    return rows


def anomalies(text):
    rows = rows_of(rf"([a-z ]+?) +{NUMBER} +{NUMBER} +{NUMBER} +{NUMBER}", text, 6)
    likelihood, corrected = ({name: row[i] for name, row in rows.items()} for i in (2, 3))
    for areas in likelihood, corrected:
        assert areas["same kind"] == pytest.approx(0.5, abs=4 * 0.0129)
        assert areas["upside down"] == pytest.approx(0.5, abs=0.06) and areas["noise"] > 0.99
    assert likelihood["constant"] < 0.25 and likelihood["flower"] < 0.35  # The failure.
    assert corrected["constant"] > 0.98 and corrected["flower"] > 0.7 and corrected["digits"] > 0.95
    assert rows["noise"][0] > np.log2(17)
    return rows


def heisenberg(text):
    """The exact energies are known ones; all others are above them, and close to them."""
    pattern = rf"(Ising.*?|Heisenberg.*?) +{NUMBER} +{NUMBER} +{NUMBER} +\S+ +\S+"
    rows = rows_of(pattern, text, 3)
    assert [exact for exact, *_ in rows.values()] == [-51.448129, -44.913933, -36.756828]
    for (exact, network, symmetric), most in zip(rows.values(), (1e-4, 1e-3, 1e-3), strict=True):
        assert exact < symmetric < network and symmetric / exact > 1 - most
    score = rf"{NUMBER} ± {NUMBER} +{NUMBER}"
    stages = rows_of(rf" +(\d+) +{score} +{score}", text, 3).values()
    for number, (energy, error, _, symmetric, smaller, _) in enumerate(stages):
        assert energy > -86.9071 - 4 * error
        assert -86.9071 - 4 * smaller < symmetric < -85.6567 - 0.5
        rows[f"6x6, {number}"] = [energy, symmetric]
    return rows


# The check of each, and by how much another machine, which rounds differently, may differ.
CHECKS = {
    "anomalies": (anomalies, 0.2),
    "information": (information, 0.2),
    "ising": (ising, 0.0),
    "quickstart": (quickstart, 1.0),
    "heisenberg": (heisenberg, 0.0),
}
# What makes a run short, which ends in other values.
SHORT = {
    "ising": [
        ("STEPS, BATCH = 1200, 128", "STEPS, BATCH = 40, 128"),
        ("COUNT = 16384", "COUNT = 64"),
        ("LARGE, EACH, STEPS = 16, 16, 900", "LARGE, EACH, STEPS = 8, 16, 60"),
        ("COUNT = 4096", "COUNT = 64"),
    ],
    "heisenberg": [
        ("STEPS = .*", "STEPS = dict(ising=24, torus=24, small=24, large=8)"),
        ("SYMMETRIES = .*", "SYMMETRIES = ('flip',)"),
        ("n_samples=samples", "n_samples=64"),
    ],
}


def stored(name):
    """Returns the text that is stored in a notebook."""
    outputs = [output for cell in CELLS[name] for output in cell["outputs"]]
    return "".join(line for output in outputs for line in output.get("text", []))


@pytest.mark.parametrize("name", CELLS)
def test_stored_outputs_are_those_of_one_run_and_have_the_known_numbers(name):
    numbers = [cell["execution_count"] for cell in CELLS[name]]
    assert numbers == [*range(1, len(numbers) + 1)]
    # No traces of a machine: warnings, errors, absolute paths.
    assert not re.search(r"(^|\s)/\w|Warning|Error", stored(name))
    CHECKS[name][0](stored(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", CELLS)
def test_every_cell_runs(name, tmp_path):
    """What is stored is what the code gives, but for rounding on another machine."""
    check, tolerance = CHECKS[name]
    program = "\n\n".join("".join(cell["source"]) for cell in CELLS[name])
    for line, shorter in SHORT.get(name, []):
        program, count = re.subn(line, shorter, program)
        assert count == 1
    program += "\n\nfor n in plt.get_fignums(): plt.figure(n).canvas.draw()"
    variables = os.environ | {"MPLBACKEND": "agg", "PYTHONPATH": str(ROOT)}
    # In a process of its own: a notebook has neither the devices nor the settings of the tests.
    command = [sys.executable, *STRICT, "-c", program]
    run = subprocess.run(command, cwd=tmp_path, env=variables, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    if name in SHORT:
        assert len(run.stdout.splitlines()) == len(stored(name).splitlines())
        return
    before, now = check(stored(name)), check(run.stdout)
    assert now.keys() == before.keys()
    for key, values in now.items():
        assert values == pytest.approx(before[key], abs=tolerance), key
