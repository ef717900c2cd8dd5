"""Which config a run may go on with."""

import dataclasses
import json
import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from etils import epath

from pixel_rnn_jax.config import Config, leaves
from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.paths import expanded
from pixel_rnn_jax.runs.workdir import newest_step, read_config
from pixel_rnn_jax.runtime import storage

Digests = dict[str, str]
"""Digests of the splits "train" and "validation"."""

RESUMABLE = {
    "model.remat",
    "model.images_per_lane",
    "data.data_dir",
    "data.test_split",
    "train.steps",
    "train.micro_batches",
    "train.eval_batch_size",
    "train.log_every",
    "train.eval_every",
    "train.checkpoint_every",
    "train.patience",
    "init_from",
    "init_partial",
}
"""The fields of a config that may change when a run is resumed, since they do not affect its rest:
where files are, how often to log, how the same function is computed, how long to train. Where the
parameters came from need not be given again, and stays on record.

`train.minutes` may become 0, so that `train.steps` counts.

`train.steps` may not under the "cosine" schedule or with `train.in_turn`, which spread the learning
rate or the scales over exactly that many steps. `data.validation_split` may not, since validations
on different images cannot be compared.
"""
BEFORE_CONFIG = {"data.json": {"train", "validation"}, "images.json": {"image_shape", "levels"}}
"""The files that a run writes before its config, and keys of what is in them."""
CHANGEABLE = {
    "optimizer.learning_rate",
    "optimizer.schedule",
    "optimizer.warmup_steps",
    "optimizer.boundaries",
    "optimizer.boundary_factors",
    "optimizer.clip_norm",
    "train.steps",
    "train.batch_size",
    "data.train_split",
    "data.binarize",
    "data.flip",
}
"""The fields that may change as well where the user names them: they affect the rest of a run, but
fit what it has saved."""


def check_usable(
    workdir: epath.Path,
    config: Config,
    allowed: Collection[str] = (),
    digests: Callable[[], Digests] | None = None,
) -> dict[str, tuple[Any, Any]]:
    """Raises a `UserError` unless a workdir is empty or its run can go on with this config.

    A run without a checkpoint may begin again with any config. The data may have moved: `digests`
    returns those of the data that `config` names, and None leaves that check for later.

    Returns:
        The fields that change what the rest of the run does, with the value before and after.
    """
    _check_names(allowed)
    if (workdir / "config.json").exists():
        old, name = read_config(workdir), config.data.name
        if os.path.islink(folder := workdir / "checkpoints") and not folder.exists():
            raise UserError(
                f"{folder} is a link to {os.readlink(folder)}, which is not there: bring it back, "
                "or delete the link to begin the run again"
            )
        if newest_step(workdir) is None:
            return {}
        if "train.steps" in allowed and config.train.minutes:
            raise UserError(
                "train.steps follow from train.minutes: to change them (--allow_change), give "
                "--config.train.minutes=0 as well"
            )
        moved = name != old.data.name and epath.Path(expanded(name)).exists()
        stored, begun_with = read_digests(workdir), old.data.name
        if moved and stored:
            old = dataclasses.replace(old, data=dataclasses.replace(old.data, name=name))
        changes = check_resumable(old, config, allowed)
        if "data.train_split" in changes:
            stored.pop("train", None)
        if stored and digests and not stored.items() <= digests().items():
            raise UserError(
                f"data.name {name!r} does not hold the images that {workdir} was trained on, which "
                f"were in {begun_with!r}: name their new place, or use another --workdir"
            )
        return changes
    for name in ("checkpoints", "metrics.jsonl", "history.jsonl", "result.json", *BEFORE_CONFIG):
        if (workdir / name).exists() and not _is_of_a_start(workdir / name):
            raise UserError(
                f"{workdir} has {name} but no config.json, so what it holds is not known: use "
                "another --workdir"
            )
    return {}


def _is_of_a_start(path: epath.Path) -> bool:
    """Whether a file is one that a run leaves which was killed before it wrote its config."""
    try:
        found = json.loads(path.read_bytes()) if path.name in BEFORE_CONFIG else None
    except (ValueError, IsADirectoryError):
        return False
    except FileNotFoundError:  # The first process has begun anew.
        return True
    return isinstance(found, dict) and found.keys() >= BEFORE_CONFIG[path.name]


def read_digests(workdir: epath.PathLike) -> Digests:
    """Returns what `write_digests` wrote; {} where there is nothing, of an earlier version.

    Raises:
        UserError: The file is damaged or cannot be read.
    """
    path = epath.Path(workdir) / "data.json"
    try:
        if not path.exists():
            return {}
        found = json.loads(path.read_bytes())
        return {split: found[split] for split in ("train", "validation")}
    except storage.errors() as error:
        raise UserError(f"{path} cannot be read: {storage.reason(error)}") from error
    except storage.DAMAGED_JSON as error:
        raise UserError(
            f"{path} is damaged, so that the data cannot be told from others: restore it, or "
            "delete it to go without this check, on data of the same name as before"
        ) from error


def write_digests(workdir: epath.PathLike, digests: Digests) -> None:
    """Writes `workdir`/data.json, by which the run knows its data again."""
    with storage.writing(workdir):
        content = json.dumps(digests) + "\n"
        storage.write_atomically(epath.Path(workdir) / "data.json", content.encode())


def _check_names(allowed: Collection[str]) -> None:
    if impossible := sorted(set(allowed) - CHANGEABLE):
        raise UserError(
            f"{impossible[0]} cannot be changed in a run (--allow_change): choose from "
            f"{', '.join(sorted(CHANGEABLE))}"
        )


def check_resumable(
    old: Config, new: Config, allowed: Collection[str] = ()
) -> dict[str, tuple[Any, Any]]:
    """Checks that a run that was started with `old` may be resumed with `new` (see RESUMABLE).

    `allowed` are fields of CHANGEABLE that may change as well; those that do are returned with both
    values.

    Raises:
        UserError: A field has changed that may not; names each one, with both values.
    """
    new_values = dict(leaves(new))
    changed = {name: value for name, value in leaves(old) if value != new_values[name]}
    refused, note, changeable = changed.keys() - RESUMABLE, "", CHANGEABLE
    if not new.train.minutes:
        refused -= {"train.minutes"}
    if not {old.data.binarize, new.data.binarize} <= {"dynamic", "fixed"}:
        changeable = changeable - {"data.binarize"}  # It would change the validation images.
    cosine = "cosine" in (old.optimizer.schedule, new.optimizer.schedule)
    if "train.steps" in changed and (cosine or old.train.in_turn):
        refused |= {"train.steps"}
        note = ' (the "cosine" schedule, or the turns of the scales, are spread over train.steps)'
    changes_rest = refused & changeable & set(allowed) if not old.train.in_turn else set()
    asked = ",".join(sorted(refused))
    refused -= changes_rest
    if refused:
        changes = ", ".join(
            f"{name} from {changed[name]!r} to {new_values[name]!r}" for name in sorted(refused)
        )
        raise UserError(
            f"this workdir holds a run that cannot go on with another config{note}: use another "
            f"--workdir, or do not change {changes}"
            + (
                f"; --allow_change={asked} changes it all the same"
                if refused <= changeable and not old.train.in_turn
                else ""
            )
        )
    return {name: (changed[name], new_values[name]) for name in sorted(changes_rest)}


def record_changes(workdir: epath.Path, step: int, changes: Mapping[str, tuple[Any, Any]]) -> None:
    """Adds to `workdir`/history.jsonl which fields of the config changed after a step."""
    path = workdir / "history.jsonl"
    values = {name: {"from": old, "to": new} for name, (old, new) in changes.items()}
    line = json.dumps({"step": step, "changed": values}) + "\n"
    with storage.writing(workdir):
        before = path.read_bytes() if path.exists() else b""
        end = b"\n" if before and not before.endswith(b"\n") else b""  # A line may be cut off.
        storage.write_atomically(path, before + end + line.encode())
