"""Checkpoints of a training run, written by Orbax in the background and sealed with a digest.

A checkpoint is the folder `<workdir>/checkpoints/<step>`. Orbax writes it under a temporary name
and renames it when it is complete, so a run that is killed leaves either a whole checkpoint or one
that the next start clears away. Orbax does not notice a byte that changed afterwards: that is what
the digest is for.

Arrays are stored under their paths ("params/conv/kernel"): which containers held them (the named
tuples of an optimiser, say) is no part of the file.
"""

import contextlib
import errno
import functools
import hashlib
import json
import logging
import math
import os
import re
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import absl.logging
import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from pixel_rnn_jax.errors import UserError
from pixel_rnn_jax.runtime import devices, processes, storage

PyTree = Any

OTHERS_S = 300
"""How long a process that has written its part of a checkpoint waits for the others."""


class Checkpoints:
    """The checkpoints of one workdir: the newest two, and the best by validation.

    For one process, or for several which call every method together and all hold the whole state:
    each leaf is an array that is fully addressable or fully replicated, as its digest is that of
    its global value.

    A save that failed in the background is reported by the next call of any method. The first
    instance in a process switches off Orbax's own messages there.
    """

    def __init__(self, workdir: epath.PathLike, *, read_only: bool = False):
        """Opens the checkpoints of `workdir`, and clears away what a killed run left half-written.

        Args:
          workdir: the run's folder.
          read_only: create, clear away and delete nothing; for verbs that only read, which may run
            while the workdir is being trained.

        Raises:
          UserError: the folder cannot be created or read, or the processes do not see the same
            checkpoints in it.
        """
        _silence_orbax()
        # Orbax takes absolute paths; that of a bucket is one, which `resolve` would not know.
        path = epath.Path(workdir)
        self._directory = (path if "://" in str(path) else path.resolve()) / "checkpoints"
        self._nats: dict[int, float | None] = {}
        self._failed = False
        try:
            self._manager = ocp.CheckpointManager(
                self._directory,
                options=ocp.CheckpointManagerOptions(
                    read_only=read_only,
                    cleanup_tmp_directories=True,
                    lightweight_initialize=True,
                    preservation_policy=_NewestTwoAndBest(self._nats),
                    async_options=ocp.AsyncOptions(
                        timeout_secs=OTHERS_S,
                        # In the background, one that cannot be created would leave threads which
                        # wait for it, and keep the process, until then.
                        create_directories_asynchronously=False,
                    ),
                ),
            )
        except storage.errors() as error:
            raise UserError(
                f"Checkpoints cannot be kept in {self._directory} ({storage.reason(error)}): "
                "choose another --workdir."
            ) from error
        # The manager would make the processes wait for each other in every reading, which one of
        # them may not get to, where its storage fails, or a run that goes on deletes what it reads.
        own = jax.process_index()
        self._reader = ocp.Checkpointer(
            ocp.CompositeCheckpointHandler(),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=own,
                active_processes={own},
                barrier_sync_key_prefix=f"reader_{own}",
            ),
        )
        # Seconds are counted, not measured, so that all processes go on to the same comparison.
        for seconds in range(processes.STORAGE_S + 1):
            if seconds:
                time.sleep(1)
                self._manager.reload()
            self._read_nats()
            if devices.all_equal(json.dumps(self._nats, sort_keys=True)):
                return
        raise UserError(
            f"the processes see different checkpoints in {self._directory}: --workdir must be on "
            "storage that all of them share"
        )

    def save(self, step: int, state: PyTree, *, validation_nats: float | None = None) -> None:
        """Saves `state` as step `step`; returns when it is copied, and writes in the background.

        A step that is stored already stays as it is. Older checkpoints are deleted only when the
        new one is complete.

        Args:
          step: the number of training steps that led to `state`.
          state: a dict of trees of arrays, none of size 0; random keys as their key data.
          validation_nats: nats per validation image, lower is better; None where not measured.

        Raises:
          UserError: this save or the one before it failed (the disk is full, say). The checkpoints
            before it are untouched.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        arrays = _by_path(state)
        self._nats[step] = validation_nats
        digest = _digest(arrays, validation_nats)
        with self._errors_of_saves():
            self._manager.save(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeSave(arrays), digest=ocp.args.JsonSave(digest)
                ),
                force=True,
            )

    def latest_step(self) -> int | None:
        """The newest checkpoint, or None."""
        self.wait()
        return max(self._manager.all_steps(), default=None)

    def best_step(self) -> int | None:
        """The checkpoint with the lowest validation nats, or None if none has been validated."""
        self.wait()
        return _best(self._manager.all_steps(), self._nats)

    def restore(self, template: PyTree, step: int) -> PyTree:
        """Reads a checkpoint and checks it against its digest.

        Args:
          template: a dict of trees of `jax.ShapeDtypeStruct` (or arrays) with the shardings that
            the result shall have. Entries that it leaves out ("opt_state", for evaluation) are
            neither read nor checked.
          step: one of the stored steps.

        Returns:
          A tree like `template`, bit for bit what was saved.

        Raises:
          UserError: there is no such step, or it belongs to another model, or it is damaged.
        """
        self.wait()
        path = self._directory / str(step)
        if not path.exists():
            raise UserError(
                f"There is no checkpoint {path}: choose one of the steps "
                f"{sorted(self._manager.all_steps())}."
            )
        wanted = _by_path(template)
        stored = {
            name: array
            for name, array in self._read_digest(step)["arrays"].items()
            if name.split("/")[0] in template
        }
        for name in wanted | stored:
            here = _type(wanted[name]) if name in wanted else "absent"
            there = stored[name]["type"] if name in stored else "absent"
            if here != there:
                raise UserError(
                    f"Checkpoint {path} belongs to another model or optimiser ({name} is {there} "
                    f"there and {here} here): use the config it was trained with, or another "
                    "--workdir."
                )
        try:
            # As numpy arrays, so that nothing can fail here but the reading.
            arrays = self._reader.restore(
                path,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        dict.fromkeys(wanted, 0),
                        restore_args=dict.fromkeys(
                            wanted, ocp.RestoreArgs(restore_type=np.ndarray)
                        ),
                        partial_restore=True,
                    )
                ),
            )["state"]
            intact = all(_fingerprint(arrays[name]) == stored[name] for name in wanted)
        except Exception as error:
            raise self._unusable(step, error) from error
        if not intact:
            raise self._unusable(step)
        return jax.tree.unflatten(
            jax.tree.structure(template),
            [
                jax.device_put(arrays[name], getattr(leaf, "sharding", None))
                for name, leaf in wanted.items()
            ],
        )

    def wait(self) -> None:
        """Waits until the save in the background, if there is one, is complete.

        Raises:
          UserError: it failed.
        """
        with self._errors_of_saves():
            self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits as `wait` does, then frees what Orbax holds."""
        if self._failed and processes.joined():
            return  # The process ends at once, and the others with it.
        with self._errors_of_saves():
            try:
                self._manager.wait_until_finished()
            finally:
                # Orbax's own wait in here would leave everything open after a failed save.
                self._manager.close()
                self._reader.close()

    def _read_nats(self) -> None:
        self._nats.clear()
        for step in self._manager.all_steps():
            try:
                self._nats[step] = self._read_digest(step)["validation_nats"]
            except _OutOfReach:
                raise
            except UserError:
                # Reported to whoever restores this step; until then it is only not the best one.
                self._nats[step] = None

    def _read_digest(self, step: int) -> dict[str, Any]:
        try:
            digest = self._reader.restore(
                self._directory / str(step),
                args=ocp.args.Composite(digest=ocp.args.JsonRestore()),
            )["digest"]
            intact = digest.pop("sha256") == _sha256_of_json(digest)
        except Exception as error:
            raise self._unusable(step, error) from error
        if not intact:
            raise self._unusable(step)
        return digest

    def _unusable(self, step: int, error: Exception | None = None) -> UserError:
        path = self._directory / str(step)
        if error is not None and _says(error, errno.EACCES):
            return UserError(f"Checkpoint {path} may not be read: give yourself the right to.")
        if error is not None and storage.out_of_reach(error):
            return _OutOfReach(
                f"Checkpoint {path} cannot be read ({storage.reason(error)}): look at the network "
                "and at your rights in the bucket, and start again."
            )
        others = set(self._manager.all_steps()) - {step}
        fallback = f"fall back on step {max(others)}" if others else "start again from step 0"
        return UserError(
            f"Checkpoint {path} is damaged or incomplete, as it does not match its digest: delete "
            f"this folder to {fallback}."
        )

    @contextlib.contextmanager
    def _errors_of_saves(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._failed = True
            # One that waits for the others after its own save has failed has that as the first.
            if processes.is_loss(storage.chain(error)[-1]):
                raise
            if _says(error, errno.ENOSPC, errno.EDQUOT):
                cause = "the disk is full"
            else:
                first = storage.chain(error)[-1]
                cause = str(first).partition("\n")[0]
                if isinstance(first, storage.errors()):
                    cause = storage.reason(first)
            where = "from the last good checkpoint"
            with contextlib.suppress(*storage.errors()):  # The bucket may have gone.
                self._manager.reload()
                last = max(self._manager.all_steps(), default=None)
                where = (
                    "from step 0" if last is None else f"from step {last}, the last good checkpoint"
                )
            raise UserError(
                f"A checkpoint could not be written to {self._directory} ({cause}): put that right "
                f"and start again, which goes on {where}."
            ) from error


class _OutOfReach(UserError):
    """A checkpoint is not known to be damaged: the bucket that it is in does not give it."""


class _NewestTwoAndBest(ocp.checkpoint_managers.PreservationPolicy):
    def __init__(self, nats: dict[int, float | None]):
        self._nats = nats

    def should_preserve(
        self,
        checkpoints: Sequence[ocp.checkpoint_managers.PolicyCheckpointInfo],
        *,
        context: ocp.checkpoint_managers.PreservationContext,
    ) -> Sequence[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*sorted(steps)[-2:], _best(steps, self._nats)}
        return [step in kept for step in steps]


def _best(steps: Iterable[int], nats: dict[int, float | None]) -> int | None:
    measured = [
        (value, step)
        for step in steps
        if (value := nats.get(step)) is not None and math.isfinite(value)
    ]
    return min(measured)[1] if measured else None


def _by_path(tree: PyTree) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _digest(arrays: dict[str, Any], validation_nats: float | None) -> dict[str, Any]:
    """What tells that a checkpoint is whole: a hash of each array, and one of all of this."""
    digest = {
        "validation_nats": validation_nats,
        "arrays": {name: _fingerprint(array) for name, array in jax.device_get(arrays).items()},
    }
    return digest | {"sha256": _sha256_of_json(digest)}


def _fingerprint(array: np.ndarray) -> dict[str, str]:
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return {"type": _type(array), "sha256": hashlib.sha256(data.data).hexdigest()}


def _type(array: Any) -> str:
    return f"{np.dtype(array.dtype).name}{list(array.shape)}"


def _sha256_of_json(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _says(error: BaseException, *codes: int) -> bool:
    """Whether `error` is due to one of these system errors, which TensorStore gives as text."""
    return any(os.strerror(code) in str(link) for link in storage.chain(error) for code in codes)


@functools.cache
def _silence_orbax() -> None:
    """Keeps Orbax's messages off the terminal; what fails is raised, and told in one sentence.

    They come by three ways: absl's one logger; asyncio's, about the arrays that failed beside the
    first one; and the hook for exceptions that nobody can catch, when one more array fails after
    Orbax has closed its event loop.
    """
    absl.logging.get_absl_logger().addFilter(
        lambda record: "orbax" not in epath.Path(record.pathname).parts
    )
    with_traceback = logging.Formatter()
    logging.getLogger("asyncio").addFilter(
        lambda record: not re.search("orbax|tensorstore", with_traceback.format(record))
    )
    others = sys.unraisablehook

    def unraisable(args: Any) -> None:
        if str(args.exc_value) != "Event loop is closed":
            others(args)

    sys.unraisablehook = unraisable
