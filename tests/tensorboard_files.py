"""Reads TensorBoard files as TensorBoard does."""

import struct
from collections.abc import Iterator
from pathlib import Path

from tensorboardX.proto.event_pb2 import Event


def events(workdir: Path) -> Iterator[Event]:
    """Yields the events of all files in the order in which TensorBoard reads them."""
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("Q", content[:8])
            yield Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]


def shown(workdir: Path) -> list[tuple[int, str, float]]:
    """Returns (step, tag, value) of what TensorBoard shows: a start hides what is not before it."""
    entries: list[tuple[int, str, float]] = []
    for event in events(workdir):
        if event.HasField("session_log"):
            entries = [entry for entry in entries if entry[0] < event.step]
        entries += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
    return entries
