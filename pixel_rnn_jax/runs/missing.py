"""What a workdir has lost: records and checkpoints are compared with each other."""

import math
from collections.abc import Mapping

from etils import epath

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs.records import read_records
from pixel_rnn_jax.runtime import storage


def missing(workdir: epath.PathLike, validations: Mapping[int, float]) -> list[str]:
    """Returns a sentence for each record or checkpoint that should be there and is not.

    Args:
        workdir: The folder of the run.
        validations: The nats per validation image of each step that has a checkpoint; NaN where it
            was not validated.
    """
    path = epath.Path(workdir) / "metrics.jsonl"
    unreadable: tuple[type[Exception], ...] = (UserError, *storage.errors())
    try:
        if not path.exists():
            return [f"{path} is not there: the records of the run are lost"] if validations else []
        records = read_records(workdir)
    except unreadable as error:
        return [f"the records of the run cannot be read: {error}"]
    if not validations:
        last = max((record["step"] for record in records), default=0)
        return [f"{workdir} has records up to step {last}, but no checkpoint"] if last else []
    recorded = {
        record["step"]: record["validation/nats"]
        for record in records
        if "validation/nats" in record
    }
    sentences = [
        f"{path} has no record of the validation of step {step}: records are lost"
        for step, nats in validations.items()
        if math.isfinite(nats) and step not in recorded
    ]
    best = min(sorted(recorded), key=recorded.__getitem__, default=None)
    if best is not None and best not in validations:
        sentences.append(
            f"step {best} has the best validation of {path}, but no checkpoint (yet, if the run is "
            "training)"
        )
    return sentences
