"""Checkpoints of a training run, written by Orbax in the background and sealed with a digest.

A checkpoint is the folder `<workdir>/checkpoints/<step>`. Orbax writes it under a temporary name,
which the next start deletes, and renames it when it is complete. Orbax does not notice a byte that
changes afterwards; the digest does. Arrays are stored under their paths ("params/conv/kernel"),
without the containers that held them, such as the named tuples of an optimiser.
"""

import contextlib
import json
import math
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runs import orbax_messages
from pixel_rnn_jax.runs.fingerprints import fingerprint, sha256_of_json, type_of
from pixel_rnn_jax.runs.names import by_name
from pixel_rnn_jax.runs.records import read_records
from pixel_rnn_jax.runtime import processes, storage

PyTree = Any

OTHERS_S = 300
"""How long a process that has written its part of a checkpoint waits for the others."""
DELETED_S = 3
"""After this long, a checkpoint that a training deletes while it is read is gone."""


class Checkpoints:
    """The checkpoints of a workdir: the newest two, and the one with the best validation.

    With several processes, all of them call every method together, and each has the whole state:
    every array is fully addressable or fully replicated. If a save fails in the background, the
    next call of any method raises a `UserError`.
    """

    def __init__(self, workdir: epath.PathLike, *, read_only: bool = False):
        """Opens the checkpoints, and deletes what a killed run has left half-written.

        Args:
            workdir: The folder of the run.
            read_only: Create and delete nothing, so that a run can be read while it trains.

        Raises:
            UserError: The folder cannot be used, the processes see different checkpoints in it, or
                the validation of one cannot be read, so that the best one is not known.
        """
        orbax_messages.silence()
        path = epath.Path(workdir)  # Orbax takes absolute paths; that of a bucket is absolute.
        self._directory = (path if "://" in str(path) else path.resolve()) / "checkpoints"
        self._nats: dict[int, float] = {}  # Of each step; NaN where the model was not validated.
        self._failed = False
        options = ocp.CheckpointManagerOptions(
            read_only=read_only,
            cleanup_tmp_directories=True,
            lightweight_initialize=True,
            preservation_policy=_NewestTwoAndBest(self._best),
            async_options=ocp.AsyncOptions(
                timeout_secs=OTHERS_S,
                # The threads that wait for a folder that cannot be created outlive the run.
                create_directories_asynchronously=False,
            ),
        )
        try:
            self._manager = ocp.CheckpointManager(self._directory, options=options)
        except storage.errors() as error:
            verb, way = "kept in", "choose another --workdir"
            if read_only:
                verb, way = "read from", "look at your rights, or try again later"
            reason = storage.reason(error)
            message = f"checkpoints cannot be {verb} {self._directory} ({reason}): {way}"
            raise UserError(message) from error
        # Through the manager, all processes would wait for each other at every read; one may never
        # get there, since its storage fails or a run that is still training deletes the checkpoint.
        process = jax.process_index()
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=process,
                active_processes={process},
                barrier_sync_key_prefix=f"reader_{process}",
            ),
        )
        # Seconds are counted, not measured, so that all processes compare equally often.
        for seconds in range(processes.STORAGE_S + 1):
            if seconds:
                time.sleep(1)
                self._manager.reload()
            damage = self._read_validations()
            known = {step: None if step in damage else nats for step, nats in self._nats.items()}
            if not processes.all_equal(json.dumps(known, sort_keys=True)):
                continue
            hidden = self._perhaps_best(damage)
            if hidden is None:
                return
            if not read_only or seconds >= DELETED_S:
                raise damage[hidden]
        raise UserError(
            f"the processes see different checkpoints in {self._directory}: --workdir must be on "
            "storage that all of them share"
        )

    def save(self, step: int, state: PyTree, *, validation_nats: float | None = None) -> None:
        """Copies a state and writes it in the background, unless the step is stored already.

        Older checkpoints are deleted only when the new one is complete.

        Args:
            step: Number of training steps that led to the state.
            state: A dict of trees of arrays, none of size 0.
            validation_nats: Nats per validation image, if the model was validated at this step.

        Raises:
            UserError: This save or the one before it has failed; earlier checkpoints are intact.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        arrays = by_name(state)
        self._nats[step] = math.nan if validation_nats is None else validation_nats
        digest: dict[str, Any] = {
            "validation_nats": self._nats[step],
            "arrays": {name: fingerprint(array) for name, array in jax.device_get(arrays).items()},
        }
        digest["sha256"] = sha256_of_json(digest)
        items = {"state": ocp.args.PyTreeSave(arrays), "digest": ocp.args.JsonSave(digest)}
        with self._errors_of_saving():
            self._manager.save(step, args=ocp.args.Composite(**items), force=True)

    def latest_step(self) -> int | None:
        """Returns the step of the newest checkpoint, or None."""
        self.wait()
        return max(self._manager.all_steps(), default=None)

    def best_step(self) -> int | None:
        """Returns the step with the lowest validation nats, or None if none was validated."""
        self.wait()
        return self._best(self._manager.all_steps())

    def restore(self, template: PyTree, step: int) -> PyTree:
        """Reads a checkpoint and checks it against its digest.

        Args:
            template: A dict of trees of `jax.ShapeDtypeStruct` (or arrays) with the shardings of
                the result. Entries of the state that it leaves out are neither read nor checked.
            step: One of the stored steps.

        Returns:
            A tree like `template`, bit for bit what was saved.

        Raises:
            UserError: There is no such step, it belongs to another model, or it is damaged.
        """
        self.wait()
        path = self._directory / str(step)
        if not path.exists():
            steps = sorted(self._manager.all_steps())
            raise Unreadable(f"there is no checkpoint {path}: choose one of the steps {steps}")
        wanted = by_name(template)
        digests = self._read_digest(step)["arrays"]
        stored = {name: digests[name] for name in digests if name.split("/")[0] in template}
        for name in wanted | stored:
            here = type_of(wanted[name]) if name in wanted else "absent"
            there = stored[name]["type"] if name in stored else "absent"
            if here != there:
                raise UserError(
                    f"checkpoint {path} belongs to another model or optimiser ({name} is {there} "
                    f"there and {here} here): use the config it was trained with, or another "
                    "--workdir"
                )
        # As NumPy arrays, so that nothing but the reading can fail.
        types = dict.fromkeys(wanted, ocp.RestoreArgs(restore_type=np.ndarray))
        state = ocp.args.PyTreeRestore(
            dict.fromkeys(wanted, 0), restore_args=types, partial_restore=True
        )
        with self._reading(step, state=state) as arrays:
            _check(all(fingerprint(arrays[name]) == stored[name] for name in wanted))
        leaves = [jax.device_put(arrays[name], leaf.sharding) for name, leaf in wanted.items()]
        return jax.tree.unflatten(jax.tree.structure(template), leaves)

    def validations(self) -> dict[int, float]:
        """Returns the nats per validation image of each stored step; NaN where there are none."""
        self.wait()
        return {step: self._nats[step] for step in sorted(self._manager.all_steps())}

    def wait(self) -> None:
        """Waits for the save in the background; raises a `UserError` if it has failed."""
        with self._errors_of_saving():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, then frees what Orbax holds."""
        if self._failed and processes.joined():
            return  # The process ends at once, and the others with it.
        closing = contextlib.closing
        with self._errors_of_saving(), closing(self._reader), closing(self._manager):
            self._manager.wait_until_finished()  # Its `close` leaves all open if a save has failed.

    def _best(self, steps: Iterable[int]) -> int | None:
        measured = [step for step in sorted(steps) if math.isfinite(self._nats[step])]
        return min(measured, key=self._nats.__getitem__, default=None)

    def _read_validations(self) -> dict[int, "Unreadable"]:
        """Reads the nats of all steps; returns why those of some steps cannot be read."""
        self._nats, damage = {}, {}
        for step in self._manager.all_steps():
            self._nats[step] = math.nan
            try:
                self._nats[step] = float(self._read_digest(step)["validation_nats"])
            except Unreadable as error:
                damage[step] = error
        return damage

    def _perhaps_best(self, damage: Collection[int]) -> int | None:
        """Returns a step that cannot be read and may be the best, by the records of the run.

        Others are what a killed run was deleting.
        """
        if not damage:
            return None
        try:
            records = read_records(self._directory.parent)
        except (FileNotFoundError, UserError):
            return max(damage)
        recorded = {record["step"]: record.get("validation/nats", math.nan) for record in records}
        self._nats |= {step: recorded.get(step, math.nan) for step in damage}
        best = self._best(self._nats)
        return best if best in damage else None

    def _read_digest(self, step: int) -> dict[str, Any]:
        with self._reading(step, digest=ocp.args.JsonRestore()) as digest:
            _check(digest.pop("sha256") == sha256_of_json(digest))
        return digest

    @contextlib.contextmanager
    def _reading(self, step: int, **item: Any) -> Iterator[Any]:
        """Reads an item of a checkpoint, to be checked within the `with`."""
        path = self._directory / str(step)
        try:
            (value,) = self._reader.restore(path, args=ocp.args.Composite(**item)).values()
            yield value
        except Exception as error:
            reason = storage.reason(error)
            if storage.out_of_reach(error):
                raise UserError(
                    f"checkpoint {path} cannot be read ({reason}): look at your rights and, for a "
                    "bucket, at the network, and start again"
                ) from error
            others = set(self._manager.all_steps()) - {step}
            fallback = f"fall back on step {max(others)}" if others else "start again from step 0"
            raise Unreadable(
                f"checkpoint {path} cannot be restored ({reason}); if it is damaged or incomplete, "
                f"delete this folder to {fallback}"
            ) from error

    @contextlib.contextmanager
    def _errors_of_saving(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed = True
            # If this process lost the others after its own save had failed, the save is the root.
            root = storage.causes(error)[-1]
            if processes.is_loss(root):
                raise
            cause = storage.system_error(error) or storage.reason(root)
            where = "the last good checkpoint"
            with contextlib.suppress(*storage.errors()):  # The bucket may have gone.
                self._manager.reload()
                last = max(self._manager.all_steps(), default=None)
                where = "step 0" if last is None else f"step {last}, the last good checkpoint"
            raise UserError(
                f"a checkpoint could not be written to {self._directory} ({cause}): put that right "
                f"and start again, which goes on from {where}"
            ) from error


class Unreadable(UserError):
    """A checkpoint is damaged, or not there any more."""


def _check(matches: bool) -> None:
    if not matches:
        raise ValueError("it does not match its digest")


class _NewestTwoAndBest(ocp.checkpoint_managers.PreservationPolicy):
    def __init__(self, best: Callable[[Iterable[int]], int | None]):
        self._best = best

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-2:], self._best(steps)}
        return [step in kept for step in steps]
