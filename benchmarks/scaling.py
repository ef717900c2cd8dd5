"""What one training step costs, what bounds it and how it scales: the numbers of docs/scaling.md.

    python benchmarks/scaling.py                    # prints every table but that of memory
    python benchmarks/scaling.py counts roofline    # these tables
    python benchmarks/scaling.py memory             # memory on a TPU v5e, by its own compiler

With `--write` the tables go to docs/scaling.md, between its marks, instead. `counts`, `machines`,
`roofline` and `images` are computed from the model's own trace (see count_operations.py) by the
rule of roofline.py and are the same everywhere. `cpu` measures the machine that it runs on: run
nothing else beside it. `memory` needs the TPU's compiler (`pip install 'jax[tpu]'`) but no TPU, and
takes about ten minutes.
"""

import functools
import importlib.metadata
import os
import platform
import re
import runpy
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental import topologies
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

sys.path.insert(0, str(Path(__file__).parents[1]))
import roofline
from count_operations import Program, at_batch, count
from roofline import H100, V5E, Machine
from training import median_seconds, peak_gflops

from pixel_rnn_jax import kernels
from pixel_rnn_jax.config import ARCHITECTURES, Config, from_config_dict
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.models.network import CPU_PACK
from pixel_rnn_jax.pixel_rnn import PixelRNN
from pixel_rnn_jax.runtime import devices
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.step import TrainState, init_state, make_train_step

ROOT = Path(__file__).parents[1]
DOCUMENT = ROOT / "docs" / "scaling.md"
IMAGES: dict[str, tuple[tuple[int, int, int], int]] = {
    "digits": ((8, 8, 1), 17),
    "mnist": ((28, 28, 1), 2),
    "cifar10": ((32, 32, 3), 256),
    "imagenet32": ((32, 32, 3), 256),
    "imagenet64": ((64, 64, 3), 256),
}
"""Shape and levels of the data set of each config, which a config does not say itself."""
CHIPS = (1, 8, 64)


class Case(NamedTuple):
    """A config file, what stands after its colon, and what is changed in `model`."""

    config: str
    variant: str
    changes: tuple[tuple[str, Any], ...] = ()

    def __str__(self) -> str:
        changed = ", ".join(f"{name}={value}" for name, value in self.changes)
        return f"`{self.config}.py:{self.variant}`" + f", {changed}" * bool(changed)

    @property
    def dtype(self) -> str:
        """What the network computes in."""
        return load(self).model.dtype


CASES = [Case(config, architecture) for config in IMAGES for architecture in ARCHITECTURES]
CHAINS = [Case(config, "multi_scale") for config in IMAGES]
RECURRENT = [case for case in CASES if case.variant != "pixel_cnn"]
BFLOAT16 = [
    Case("imagenet32", architecture, (("dtype", "bfloat16"), ("remat", True)))
    for architecture in ARCHITECTURES
]
MEASURED = [case for case in CASES if case.config in ("digits", "mnist")]


def load(case: Case, *, pack: int = 1) -> Config:
    """Returns a config; `pack` is that of accelerators, or 0 for this platform's own.

    Its optimiser is RMSProp, which docs/scaling.md counts.
    """
    values = runpy.run_path(str(ROOT / "configs" / f"{case.config}.py"))["get_config"](case.variant)
    config = from_config_dict(values)
    model = replace(config.model, pack=pack, **dict(case.changes))
    return replace(config, model=model, optimizer=replace(config.optimizer, name="rmsprop"))


def model_of(case: Case, *, pack: int = 1) -> PixelRNN:
    """Returns the model of a config."""
    return PixelRNN(load(case, pack=pack).model, *IMAGES[case.config])


def images_of(case: Case, batch: int) -> Batch:
    """Returns the shape and type of a batch."""
    return Batch(jax.ShapeDtypeStruct((batch, *IMAGES[case.config][0]), jnp.uint8))


def train_step_of(config: Config, model: PixelRNN, mesh: Mesh, micro_batches: int) -> Any:
    """Returns the step that `train` runs, still to be compiled; 0 parts are the model's choice."""
    return make_train_step(
        model,
        optimizers.build(config.optimizer, config.steps_per_scale),
        mesh,
        ema_decay=config.optimizer.ema_decay,
        micro_batches=micro_batches,
    )


def new_state(case: Case, model: PixelRNN) -> TrainState:
    """Returns the state that training starts from."""
    config = load(case)
    optimizer = optimizers.build(config.optimizer, config.steps_per_scale)
    return init_state(model, optimizer, jax.random.key(0), ema=config.optimizer.ema_decay > 0)


@functools.cache
def state_shapes(case: Case) -> TrainState:
    """Returns the shapes and types of the state."""
    return jax.eval_shape(lambda: new_state(case, model_of(case)))


@functools.cache
def traced(case: Case, batch: int, pack: int) -> Program:
    """Counts the training step of a batch on one device."""
    step_fn = train_step_of(load(case), model_of(case, pack=pack), devices.make_mesh(1), 1)
    return count(step_fn, state_shapes(case), images_of(case, batch), None)


def program(case: Case, batch: int, *, pack: int = 1) -> Program:
    """Returns the count at any batch; with packing, at multiples of `CPU_PACK`."""
    return at_batch(batch, traced(case, 4, pack), traced(case, 8, pack))


def batch_of(case: Case) -> int:
    """Returns the config's batch, which all chips share."""
    return load(case).train.batch_size


def parameters(case: Case) -> int:
    """Returns the number of parameters."""
    return sum(leaf.size for leaf in jax.tree.leaves(state_shapes(case).params))


def update_bytes(case: Case) -> int:
    """Returns the bytes that an update moves: it reads the gradient, reads and writes the state."""
    leaves = jax.tree.leaves(state_shapes(case))
    return 2 * sum(leaf.size * leaf.dtype.itemsize for leaf in leaves) + 4 * parameters(case)


def step_seconds(machine: Machine, case: Case, batch: int, chips: int, *, pack: int = 1) -> float:
    """Predicts the seconds of a step of `batch` images on each of `chips`."""
    work = program(case, batch, pack=pack)
    return (
        roofline.scan_seconds(machine, work, case.dtype)
        + roofline.other_seconds(machine, work, case.dtype)
        + roofline.all_reduce_seconds(machine, chips, work.reduced)
        + update_bytes(case) / machine.bandwidth
    )


def images_per_second(machine: Machine, case: Case, chips: int, *, shared: bool) -> float:
    """Predicts the speed on so many chips, which share the config's batch or have one each."""
    batch = batch_of(case)
    if not shared:
        return chips * batch / step_seconds(machine, case, batch, chips)
    used = min(chips, batch)  # Powers of two, all of them.
    return batch / step_seconds(machine, case, batch // used, used)


# Tables.


def figure(value: float) -> str:
    """Writes a whole number exactly and any other with three digits."""
    if isinstance(value, int):
        return f"{value:,}"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.0f}" if rounded >= 100 else f"{rounded:.12g}"


def table(head: str, rows: Sequence[Sequence[object]]) -> str:
    """Returns a table in Markdown; numbers become figures of three digits."""
    lines = [head, "| " + " | ".join(["---"] * (head.count("|") - 1)) + " |"]
    for row in rows:
        cells = (figure(cell) if isinstance(cell, int | float) else str(cell) for cell in row)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def counts(cases: Sequence[Case] = (*CASES, *CHAINS, *BFLOAT16)) -> str:
    """Returns what a step of each config is made of."""
    rows = []
    for case in cases:
        work = program(case, batch_of(case))
        scanned = sum(loop.operations for loop in work.loops) / work.operations
        moved = work.bytes + update_bytes(case)
        rows.append(
            [
                case,
                parameters(case) / 1e6,
                batch_of(case),
                work.operations / batch_of(case) / 1e9,
                work.operations / 1e12,
                f"{scanned:.0%}",
                moved / 1e9,
                work.iterations,
                work.chain,
                work.reduced / 1e6,
            ]
        )
    return table(
        "| config | parameters, 10⁶ | batch | GFLOP an image | TFLOP a step | in scans "
        "| GB a step | iterations | in a chain | all-reduce, MB |",
        rows,
    )


def machines() -> str:
    """Returns what is taken of each machine."""
    rows: list[list[object]] = []
    for m in (H100, V5E):
        peaks = " / ".join(figure(peak / 1e12) for peak in m.peak.values())
        tile = "×".join(map(str, m.tile)) + f", {m.units} at a time" * (m.units > 1)
        links = ", ".join(f"{figure(s / 1e9)} up to {n} chips" for n, s in m.links.items())
        latency = f"{figure(m.launches)} × {figure(m.launch * 1e6)}"
        memories = [m.bandwidth / 1e9, m.cache / 1e6, m.cache_bandwidth / 1e12]
        rows.append(
            [m.name, peaks, f"{m.reached:.0%}", *memories, tile, latency, links, m.hop * 1e6]
        )
    return table(
        "| chip | float32 / bfloat16, TFLOP/s | reached | memory, GB/s | on chip, MB "
        "| on chip, TB/s | tile: rows, columns, depth | an iteration at least, µs "
        "| links, GB/s each way | a hop, µs |",
        rows,
    )


def scan_rows(
    machine: Machine, cases: Sequence[Case], *, pack: int = 1, split: int = 1
) -> Iterator[list[object]]:
    """Yields a row of the table of the scan for each case, its batch split over `split` chips."""
    step = CPU_PACK if pack == 0 else 1
    for case in cases:
        batch = batch_of(case) // split
        work = program(case, batch, pack=pack)
        one = roofline.mean_iteration(machine, work, case.dtype)
        bound = ("latency", "arithmetic", "memory")[one.index(max(one))]
        of_batch = functools.partial(program, case, pack=pack)
        full = roofline.full_at(machine, of_batch, case.dtype, step)
        yield [
            *(machine.name, case, batch, one.latency * 1e6, one.arithmetic * 1e6, one.memory * 1e6),
            bound,
            full,
            work.iterations * machine.latency * 1e3,
            roofline.scan_seconds(machine, work, case.dtype) * 1e3,
            roofline.other_seconds(machine, work, case.dtype) * 1e3,
        ]


SCAN_HEAD = (
    "| chip | config | batch a chip | latency, µs | arithmetic, µs | memory, µs | bound by "
    "| full at batch | latency of all, ms | all scans, ms | the rest, ms |"
)


def scan() -> str:
    """Returns the roofline of the recurrence with the config's batch on one chip."""
    cases = RECURRENT + [case for case in BFLOAT16 if case.variant != "pixel_cnn"]
    return table(SCAN_HEAD, [row for m in (H100, V5E) for row in scan_rows(m, cases)])


def images() -> str:
    """Returns predicted speeds, and how they depend on what was assumed of the latency."""
    rows = []
    for machine in (H100, V5E):
        for case in CASES + BFLOAT16:
            shared = [images_per_second(machine, case, n, shared=True) for n in CHIPS]
            own = [images_per_second(machine, case, n, shared=False) for n in CHIPS[1:]]
            extremes = [
                images_per_second(machine.with_latency(factor), case, CHIPS[-1], shared=True)
                for factor in (0.5, 2.0)
            ]
            most: object = "–"
            if case.variant != "pixel_cnn":
                full = roofline.full_at(machine, functools.partial(program, case), case.dtype)
                most = batch_of(case) // full or "less than 1"
            rows.append([machine.name, case, batch_of(case), *shared, *own, *extremes, most])
    return table(
        "| chip | config | batch | 1 chip | 8 share it | 64 share it | 8, a batch each "
        "| 64, a batch each | 64 share it, half the latency | twice | chips that the batch fills |",
        rows,
    )


# This machine.


def this_cpu() -> Machine:
    """Measures one core of this machine while all of them do the same."""
    mesh = devices.make_mesh()
    cores, floats = mesh.size, 2**25
    ones = devices.shard_batch(mesh, np.ones((cores, floats), np.float32))
    # Several in one program: that new memory is slow the first time is not what bounds a scan.
    copy = devices.map_batch(lambda _, x: lax.fori_loop(0, 10, lambda _, x: x + 1, x), mesh)
    copied = 10 * 2 * 4 * floats / median_seconds(lambda: copy((), ones), 7)
    return Machine(
        name=f"{cpu_name()}, a core of {cores}",
        peak={"float32": peak_gflops() * 1e9 / cores},
        reached=1.0,
        bandwidth=copied,
        cache=2**20,
        cache_bandwidth=float("inf"),
        launch=iteration_seconds(),
    )


def cpu_name() -> str:
    """Returns the name that the processor gives itself."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"model name\s*: (.*)", info.read_text()) if info.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def iteration_seconds(steps: int = 4096) -> float:
    """Measures an iteration of the recurrence that has little to do: one image of 8 rows, h=16."""
    rows, features = 8, 16
    gates = jnp.zeros((steps, rows, 1, 4 * features))
    kernel, start = jnp.ones((2, features, 4 * features)), jnp.zeros(features)

    def loss(gates: jax.Array) -> jax.Array:
        return kernels.conv_lstm(gates, kernel, start, start, taps=(0, -1)).sum()

    gradient = jax.jit(jax.grad(loss))
    return median_seconds(lambda: gradient(gates)) / (2 * steps)


def measured_seconds(case: Case) -> float:
    """Measures a training step on all cores."""
    config, model, batch = load(case, pack=0), model_of(case, pack=0), batch_of(case)
    mesh = devices.mesh_for(batch)
    state = jax.jit(lambda: new_state(case, model), out_shardings=devices.replicated(mesh))()
    step_fn = train_step_of(config, model, mesh, 0)
    shape, levels = IMAGES[case.config]
    drawn = np.random.default_rng(0).integers(levels, size=(batch, *shape)).astype(np.uint8)
    on_devices = devices.shard_batch(mesh, Batch(drawn))

    def step() -> Any:
        nonlocal state
        state, metrics = step_fn(state, on_devices, None)
        return metrics

    return median_seconds(step)


def cpu() -> str:
    """Returns what this machine was measured to do, and what the rule makes of it."""
    machine, cores = this_cpu(), devices.make_mesh().size
    said = (
        f"{cpu_name()}, {cores} cores, JAX {jax.__version__}. Measured of a core while all were at "
        f"work: {figure(machine.peak['float32'] / 1e9)} GFLOP/s in a large matmul, "
        f"{figure(machine.bandwidth / 1e9)} GB/s in a large copy, and "
        f"{figure(machine.latency * 1e6)} µs for an iteration that has little to do (8 rows of one "
        "image, h=16)."
    )
    rows = []
    for case in MEASURED:
        used = devices.mesh_for(batch_of(case)).size
        predicted = step_seconds(machine, case, batch_of(case) // used, 1, pack=0)
        measured = measured_seconds(case)
        speed = batch_of(case) / measured
        ratio = measured / predicted
        rows.append([case, batch_of(case), predicted * 1e3, measured * 1e3, ratio, speed])
    steps = table(
        "| config | batch | predicted, ms | measured, ms | measured / predicted | images/s |", rows
    )
    plain = [[*row[1:]] for row in scan_rows(machine, RECURRENT, pack=0, split=cores)]
    head = SCAN_HEAD.replace("| chip |", "|", 1).replace("chip", "core")
    return "\n\n".join([said, steps, table(head, plain)])


# A TPU's memory.

MEMORY_CASES: list[tuple[str, dict[str, Any], int]] = [
    ("row_lstm", {}, 1),
    ("row_lstm", {"remat": True}, 1),
    ("row_lstm", {"dtype": "bfloat16"}, 1),
    ("row_lstm", {}, 4),
    ("row_lstm", {"dtype": "bfloat16", "remat": True}, 1),
    ("row_lstm", {"dtype": "bfloat16", "remat": True}, 4),
    ("diagonal_bilstm", {}, 1),
    ("diagonal_bilstm", {"dtype": "bfloat16", "remat": True}, 1),
    ("diagonal_bilstm", {"dtype": "bfloat16", "remat": True}, 4),
    ("pixel_cnn", {}, 1),
    ("pixel_cnn", {"dtype": "bfloat16", "remat": True}, 1),
]


class Compiled(NamedTuple):
    """What a compiler says of a program's memory, in bytes.

    Attributes:
        stated: arguments, outputs that take no argument's place, temporaries, by
            `memory_analysis()`; None if the program does not fit.
        held: what it lays out in the chip's memory, all in all.
        error: its message if that does not fit.
    """

    stated: tuple[int, int, int] | None
    held: int
    error: str


def compile_for_v5e(case: Case, micro_batches: int) -> Compiled:
    """Compiles the whole training step of a config for one v5e chip, its batch on that chip."""
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # There is no TPU here to ask for its name.
    topology = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    mesh = Mesh(np.array(topology.devices[:1]), (devices.AXIS,), axis_types=(AxisType.Auto,))
    config, model = load(case), model_of(case)
    new = jax.jit(lambda: new_state(case, model), out_shardings=devices.replicated(mesh))
    state = jax.eval_shape(new)
    split = NamedSharding(mesh, PartitionSpec(devices.AXIS))
    batch = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split),
        images_of(case, batch_of(case)),
    )
    lowered = train_step_of(config, model, mesh, micro_batches).lower(state, batch, None)
    stated, error = None, ""
    with tempfile.TemporaryDirectory() as folder:
        try:
            compiled = lowered.compile({"xla_dump_to": folder, "xla_dump_hlo_as_text": True})
            found = compiled.memory_analysis()
            other = found.output_size_in_bytes - found.alias_size_in_bytes
            stated = (found.argument_size_in_bytes, other, found.temp_size_in_bytes)
        except jax.errors.JaxRuntimeError as raised:
            if "RESOURCE_EXHAUSTED" not in str(raised):
                raise
            error = str(raised).partition("\n")[0]
        (report,) = Path(folder).glob("*train_step*memory-usage-report.txt")
        held = re.search(r"Memory Space: default.*\nTotal bytes: (\d+)", report.read_text())
    assert held is not None
    return Compiled(stated, int(held[1]), error)


def memory() -> str:
    """Returns what the TPU's compiler says of imagenet32.py on one v5e."""
    rows, errors = [], []
    for variant, changes, micro_batches in MEMORY_CASES:
        case = Case("imagenet32", variant, tuple(changes.items()))
        result = compile_for_v5e(case, micro_batches)
        options = [variant, case.dtype, "yes" if "remat" in changes else "no", micro_batches]
        stated: list[object] = ["–"] * 3
        if result.stated:
            arguments, other, temporaries = result.stated
            stated = [arguments / 2**30, other / 2**10, temporaries / 2**30]
        rows.append([*options, *stated, result.held / 2**30, "**no**" if result.error else "yes"])
        if result.error:
            errors.append(f"- {case}, micro-batches: {micro_batches}: `{result.error}`")
    said = f"libtpu {importlib.metadata.version('libtpu')}, JAX {jax.__version__}, sizes in GiB."
    head = (
        "| architecture | dtype | remat | micro-batches | arguments | outputs not aliased, KiB "
        "| temporaries, `memory_analysis()` | laid out in the chip's memory | fits 15.75 |"
    )
    return "\n\n".join([said, table(head, rows), *(["\n".join(errors)] if errors else [])])


TABLES: dict[str, Callable[[], str]] = {
    "counts": counts,
    "machines": machines,
    "roofline": scan,
    "images": images,
    "cpu": cpu,
    "memory": memory,
}


def between(name: str) -> tuple[str, str]:
    """Returns the marks around a table of docs/scaling.md."""
    return f"<!-- begin {name} -->", f"<!-- end {name} -->"


def written(name: str, text: str) -> str:
    """Returns a table as it stands in a document."""
    begin, end = between(name)
    return text.partition(begin)[2].partition(end)[0].strip()


def write(name: str, new: str) -> None:
    """Puts a table in its place in docs/scaling.md."""
    begin, end = between(name)
    text = DOCUMENT.read_text()
    before, _, rest = text.partition(begin)
    _, found, after = rest.partition(end)
    assert found, f"{DOCUMENT.name} has no marks of {name}"
    DOCUMENT.write_text(f"{before}{begin}\n{new}\n{end}{after}")


def main() -> None:
    """Prints or writes the tables that are named."""
    devices.set_up_host_devices()
    names = [word for word in sys.argv[1:] if word != "--write"]
    for name in names or [name for name in TABLES if name != "memory"]:
        text = TABLES[name]()
        if "--write" in sys.argv:
            write(name, text)
        else:
            print(f"{text}\n", flush=True)


if __name__ == "__main__":
    main()
