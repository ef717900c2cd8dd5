"""How long a counted program takes on a machine: data sheets, stated assumptions and one rule.

A part takes as long as the longest of its latency, its arithmetic and its traffic with memory, and
the parts follow each other. Nothing but matmuls is charged, so that times are what a machine could
reach, not what it will.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from count_operations import Loop, Matmul, Program


@dataclass(frozen=True)
class Machine:
    """One chip and its links; the comments beside the values say where they come from.

    Attributes:
        name: for tables.
        peak: operations per second of large matmuls by type.
        reached: share of `peak` that large matmuls reach.
        bandwidth: of the memory, bytes per second.
        cache: bytes next to the units that multiply.
        cache_bandwidth: of the cache, bytes per second.
        tile: rows, columns and depth that sizes of a matmul are rounded up to.
        units: how many tiles of an output are computed at a time, each at an equal share of `peak`.
        launch: seconds that any operation takes at least.
        launches: operations that follow each other in one iteration of the recurrence.
        links: number of chips to bytes per second that a chip sends in an all-reduce among them.
        hop: seconds of one step of a ring.
    """

    name: str
    peak: dict[str, float]
    reached: float
    bandwidth: float
    cache: float
    cache_bandwidth: float
    tile: tuple[int, int, int] = (1, 1, 1)
    units: int = 1
    launch: float = 0.0
    launches: float = 1.0
    links: dict[int, float] = field(default_factory=dict)
    hop: float = 0.0

    @property
    def latency(self) -> float:
        """Seconds that one iteration of the recurrence takes at least."""
        return self.launch * self.launches

    def with_latency(self, factor: float) -> "Machine":
        """Returns a machine whose every operation takes `factor` times as long to begin."""
        return replace(self, launch=self.launch * factor)


H100 = Machine(
    name="H100",
    # Data sheet of the H100 SXM, dense. JAX multiplies float32 as TF32 by default.
    peak={"float32": 494.7e12, "bfloat16": 989.4e12},
    reached=0.7,  # Assumed: about what large matmuls are reported to reach within 700 W.
    bandwidth=3.35e12,  # Data sheet, as the 50 MB of L2.
    cache=50e6,
    cache_bandwidth=5.5e12,  # Assumed: about what is reported of reads from L2.
    tile=(128, 128, 64),  # Assumed: a usual tile of cuBLAS, one on each of the 132 processors.
    units=132,
    launch=2e-6,  # Assumed: from the start of one small kernel to that of the next.
    launches=7,  # Assumed: as many as for the v5e; no GPU's compiler was asked.
    # Data sheet: NVLink among 8, 450 GB/s each way. Assumed beyond: 400 Gbit/s of network a GPU.
    links={8: 450e9, 64: 50e9},
    hop=2e-6,  # Assumed.
)

V5E = Machine(
    name="TPU v5e",
    # Data sheet. JAX multiplies float32 as one bfloat16 product by default, with float32 sums.
    peak={"float32": 197e12, "bfloat16": 197e12},
    reached=0.9,  # Assumed.
    bandwidth=819e9,  # Data sheet.
    # VMEM. The v5e program that was compiled here holds the recurrence's kernel and carry in it.
    cache=128 * 2**20,
    cache_bandwidth=18e12,  # Assumed: 22 times that of the memory, as Google's text on scaling has.
    tile=(8, 128, 128),  # The registers and one of its four systolic arrays.
    units=4,
    launch=0.5e-6,  # Assumed: filling and draining the pipeline of one fused operation.
    launches=7,  # What the compiled loop bodies of a Row LSTM have: 8 forward, 6 backward.
    # Data sheet: four links of 400 Gbit/s. Assumed: a ring goes over two of them, both ways round.
    links={64: 100e9},
    hop=1e-6,  # Assumed.
)

MOST_DEPTH = 2048
"""Of a tile: deeper products are split among units and added up, where there are several."""


class Iteration(NamedTuple):
    """Seconds of one iteration of a scan by cause; it takes the longest of them."""

    latency: float
    arithmetic: float
    memory: float

    @property
    def busy(self) -> float:
        """Seconds for which there is work."""
        return max(self.arithmetic, self.memory)


def arithmetic_seconds(machine: Machine, matmul: Matmul, dtype: str) -> float:
    """Returns how long the multiplications take, those of padded and unused tiles included."""
    rows, columns, depth = machine.tile
    padded = math.ceil(matmul.depth / depth) * depth
    pieces = math.ceil(padded / MOST_DEPTH) if machine.units > 1 else 1
    tiles = math.ceil(matmul.rows / rows) * math.ceil(matmul.columns / columns) * pieces
    waves = math.ceil(matmul.batch * tiles / machine.units)
    operations = waves * machine.units * 2 * rows * columns * padded / pieces
    return operations / (machine.peak[dtype] * machine.reached)


def iteration(machine: Machine, loop: Loop, dtype: str) -> Iteration:
    """Returns the times of one iteration of a scan."""
    arithmetic = sum(arithmetic_seconds(machine, matmul, dtype) for matmul in loop.matmuls)
    fits = loop.held <= machine.cache
    held = loop.held / (machine.cache_bandwidth if fits else machine.bandwidth)
    return Iteration(machine.latency, arithmetic, held + loop.streamed / machine.bandwidth)


def mean_iteration(machine: Machine, program: Program, dtype: str) -> Iteration:
    """Returns the mean times over all iterations of all scans."""
    times = [(loop.length, iteration(machine, loop, dtype)) for loop in program.loops]
    total = sum(length for length, _ in times)
    return Iteration(
        machine.latency,
        sum(length * one.arithmetic for length, one in times) / total,
        sum(length * one.memory for length, one in times) / total,
    )


def scan_seconds(machine: Machine, program: Program, dtype: str) -> float:
    """Returns how long all scans take."""
    times = ((loop.length, iteration(machine, loop, dtype)) for loop in program.loops)
    return sum(length * max(one) for length, one in times)


def other_seconds(machine: Machine, program: Program, dtype: str) -> float:
    """Returns how long the matmuls outside of scans take."""
    return sum(
        max(
            machine.launch,
            arithmetic_seconds(machine, matmul, dtype),
            matmul.bytes / machine.bandwidth,
        )
        for matmul in program.matmuls
    )


def all_reduce_seconds(machine: Machine, chips: int, size: float) -> float:
    """Returns how long a ring of chips takes to add up a vector of `size` bytes."""
    if chips == 1:
        return 0.0
    bandwidth = next(speed for most, speed in sorted(machine.links.items()) if chips <= most)
    return 2 * (chips - 1) * (size / chips / bandwidth + machine.hop)


def full_at(machine: Machine, program: Callable[[int], Program], dtype: str, step: int = 1) -> int:
    """Returns the largest batch whose iterations take no longer than those of the smallest.

    Up to it an iteration takes what its latency takes, or what one tile of its output does: a
    smaller batch makes it no shorter. Batches are multiples of `step`.
    """
    least = max(mean_iteration(machine, program(step), dtype))

    def longer(batch: int) -> bool:
        return mean_iteration(machine, program(batch), dtype).busy > 1.001 * least

    high = 2
    while not longer(high * step):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if longer(middle * step) else (middle, high)
    return low * step
