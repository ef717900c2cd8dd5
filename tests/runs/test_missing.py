"""What a workdir has lost is said."""

import math

import pytest

from pixel_rnn_jax.runs.missing import missing
from pixel_rnn_jax.runs.records import MetricsWriter

VALIDATIONS = {5: 3.0, 6: math.nan, 7: 4.0}


@pytest.fixture
def workdir(tmp_path):
    with MetricsWriter(tmp_path, 0) as writer:
        for step, nats in VALIDATIONS.items():
            writer.write(step, {"train/nats": 3.0, "validation/nats": nats})
    return tmp_path


def test_nothing_is_missing(workdir, tmp_path):
    assert missing(workdir, VALIDATIONS) == []
    assert missing(tmp_path / "new", {}) == []


def test_a_checkpoint_is_missing(workdir):
    (said,) = missing(workdir, {6: math.nan, 7: 4.0})
    assert said.startswith(f"step 5 has the best validation of {workdir}/metrics.jsonl, but no che")
    assert missing(workdir, {5: 3.0, 7: 4.0}) == []  # Not one of those that are kept.
    assert missing(workdir, {}) == [f"{workdir} has records up to step 7, but no checkpoint"]


def test_records_are_missing(workdir):
    path = workdir / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1] + lines[2][:9])
    assert missing(workdir, VALIDATIONS) == [
        f"{path} has no record of the validation of step 7: records are lost"
    ]
    path.write_bytes(b"\0" + b"".join(lines))
    (said,) = missing(workdir, VALIDATIONS)
    assert said.startswith(f"the records of the run cannot be read: line 1 of {path} is not")
    path.unlink()
    assert missing(workdir, VALIDATIONS) == [
        f"{path} is not there: the records of the run are lost"
    ]
