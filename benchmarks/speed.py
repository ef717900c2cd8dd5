"""Times training steps, evaluation and drawing, beside the matmul peak and plain recurrences.

    python benchmarks/speed.py                # every size below
    python benchmarks/speed.py pixel_cnn      # those whose name holds this word
    python benchmarks/speed.py 28x28 --side=64 --batch=4    # with other sizes

"Plain" is the same model with the recurrences of `plain.py`, one image a lane, on one device with
as many threads as JAX likes. Both versions and the peak have their turn in each round; times are
medians. GFLOP/s count every weight of every matmul, masked or not, as two operations a pixel, the
backward pass as twice the forward, and no padding of the scan. Drawing is incremental; beside it is
what one evaluation for each of the H * W * C values would take. Run nothing else beside it.
"""

import argparse
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import plain
import timing
from jax.sharding import Mesh
from timing import Candidate, Worker, in_turn, timer

import pixel_rnn_jax as prnn
from pixel_rnn_jax.data import Batch
from pixel_rnn_jax.image_model import evaluate_rows
from pixel_rnn_jax.model.likelihoods import value_dtype
from pixel_rnn_jax.model.pixel_rnn import PixelRNN
from pixel_rnn_jax.runs.config import OptimizerConfig
from pixel_rnn_jax.system import devices
from pixel_rnn_jax.training import optimizers
from pixel_rnn_jax.training.step import TrainState, init_state, make_train_step

MNIST = {"image_shape": (28, 28, 1), "levels": 2}
COLOUR = {"image_shape": (32, 32, 3), "levels": 256}
MEDIUM = COLOUR | {"layers": 4, "features": 64, "head_features": 256}
WIDE = COLOUR | {"layers": 2, "features": 128, "head_features": 1024}
SMALL = COLOUR | {"architecture": "diagonal_bilstm", "layers": 3, "features": 48}
SMALL |= {"head_features": 96}
MIXTURES = "discretized_logistic_mixture", "coupled_logistic_mixture"
RNNS = "diagonal_bilstm", "row_lstm", "linear_rnn"
SIZES: dict[str, dict[str, Any]] = {
    **{f"{a}, 7 layers, h=16, 28x28x1": MNIST | {"architecture": a} for a in (*RNNS, "pixel_cnn")},
    **{f"{a}, 4 layers, h=64, 32x32x3": MEDIUM | {"architecture": a} for a in (*RNNS, "pixel_cnn")},
    **{f"{a}, 2 layers, h=128, 32x32x3": WIDE | {"architecture": a} for a in RNNS},
    **{f"3 layers, h=48, {o}": SMALL | {"output": o} for o in MIXTURES},
    "linear_rnn, 3 layers, h=48": SMALL | {"output": MIXTURES[0], "architecture": "linear_rnn"},
    "3 layers, h=48, bfloat16": SMALL | {"output": MIXTURES[1], "dtype": "bfloat16"},
}
"""Fields of a `ModelConfig`, and the images."""
SIZE_FLAGS = "layers", "features", "head_features", "side", "batch"


class Step(NamedTuple):
    """A compiled training step on random images.

    Attributes:
        run: Makes one step and returns when it is made.
        params: The parameters at the start.
        batch: The batch, split over the devices.
        temporaries: Bytes of temporaries on a device.
        jaxpr: The program of a step.
    """

    run: Callable[[], Any]
    params: Any
    batch: Batch
    temporaries: int
    jaxpr: Any


def first_state(
    model: PixelRNN, optimizer: Any, mesh: Mesh, ema_decay: float, seed: int = 0
) -> TrainState:
    """Returns the state before the first step, on all devices."""

    def new_state() -> TrainState:
        return init_state(optimizer, model.init(jax.random.key(seed)), ema=ema_decay > 0)

    return jax.jit(new_state, out_shardings=devices.replicated(mesh))()


def prepare(model: PixelRNN, batch: int, mesh: Mesh, ema_decay: float = 0.999) -> Step:
    """Compiles a step with RMSProp on `batch` images of this process."""
    optimizer = optimizers.build(OptimizerConfig("rmsprop", weight_decay=0), steps=1000)
    initial = functools.partial(first_state, model, optimizer, mesh, ema_decay)
    images = np.random.default_rng(0).integers(model.levels, size=(batch, *model.image_shape))
    rows = devices.shard_batch(mesh, Batch(images.astype(value_dtype(model.levels))))
    state = initial()
    step: Any = make_train_step(model, optimizer, mesh, ema_decay=ema_decay, micro_batches=0)
    traced = step.trace(state, rows, None)
    compiled = traced.lower().compile()

    def run() -> None:
        nonlocal state
        state, metrics = compiled(state, rows, None)
        jax.block_until_ready(metrics)

    temporaries = compiled.memory_analysis().temp_size_in_bytes
    return Step(run, initial().params, rows, temporaries, traced.jaxpr)


def weights_of(params: Any) -> int:
    """Returns the number of weights of all matmuls."""
    return sum(leaf.size for leaf in jax.tree.leaves(params) if leaf.ndim > 1)


def matmul(dtype: str = "float32", side: int = 2048) -> tuple[Callable[[], Any], float]:
    """Returns a matmul of square matrices on every device, and the GFLOP of all together."""
    mesh = devices.make_mesh()
    ones = devices.shard_batch(mesh, np.ones((mesh.size, side, side), np.float32)).astype(dtype)
    square = devices.map_batch(lambda _, x: x @ x, mesh)
    return lambda: jax.block_until_ready(square((), ones)), 2 * mesh.size * side**3 / 1e9


def build(*, size: dict[str, Any], batch: int, is_plain: bool, seconds: float) -> Candidate:
    """Builds one size as the command line would set it up, or plain."""
    fields = size | {"images_per_lane": 1 if is_plain else 0}
    shape, levels = tuple(fields.pop("image_shape")), fields.pop("levels")
    if is_plain:
        plain.use()
    else:
        devices.set_up_host_devices()
    mesh = devices.make_mesh(1) if is_plain else devices.mesh_for(batch)
    model = prnn.create(prnn.ModelConfig(**fields), shape, levels)
    core, step = model.pixel_rnn, prepare(model.pixel_rnn, batch, mesh)
    log_prob = devices.map_batch(
        functools.partial(evaluate_rows, PixelRNN.log_prob, core, ()), mesh
    )

    def evaluate() -> None:
        jax.block_until_ready(log_prob((step.params,), step.batch))

    def draw() -> None:
        jax.block_until_ready(model.sample(jax.random.key(0), batch))

    timers = {"step": timer(step.run, seconds), "evaluation": timer(evaluate, seconds)}
    facts = {
        "machine": timing.machine(),
        "megabytes": step.temporaries / 1e6,
        "step_gflop": 6 * weights_of(step.params) * shape[0] * shape[1] * batch / 1e9,
    }
    if not is_plain:
        square, facts["matmul_gflop"] = matmul()
        timers |= {"matmul": timer(square, seconds), "drawing": timer(draw, seconds)}
    return Candidate(timers, facts)


def parser(doc: str | None) -> argparse.ArgumentParser:
    """Returns a parser with what changes the sizes of every row, and the words that choose rows."""
    flags = timing.parser(doc, words=True)
    timing.add_flags(flags)
    for field in SIZE_FLAGS:
        flags.add_argument(f"--{field}", type=int, help="instead of that of each row")
    return flags


def chosen(
    sizes: dict[str, dict[str, Any]], options: argparse.Namespace
) -> dict[str, dict[str, Any]]:
    """Returns the rows that the command line asks for, with its sizes."""
    named = {name: getattr(options, name) for name in SIZE_FLAGS if getattr(options, name)}
    changes = {name: named[name] for name in named if name not in ("side", "batch")}
    rows = {}
    for name in timing.chosen(sizes, options.words):
        height, width, channels = sizes[name]["image_shape"]
        side = (options.side or height, options.side or width, channels)
        title = ", ".join([name, *(f"--{flag}={value}" for flag, value in named.items())])
        rows[title] = sizes[name] | changes | {"image_shape": side}
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    options = parser(__doc__).parse_args(arguments)
    batch = options.batch or 16
    print(f"batch {batch}; the peak is that of a large float32 matmul on all devices")
    for name, size in chosen(SIZES, options).items():
        common = {"size": size, "batch": batch, "seconds": options.seconds}
        with (
            Worker(__file__, **common, is_plain=False) as fast,
            Worker(__file__, **common, is_plain=True) as slow,
        ):
            timers = fast.timers | {f"plain {name}": t for name, t in slow.timers.items()}
            seconds = in_turn(timers, options.rounds)
        step, evaluation, drawing = (seconds[kind] for kind in ("step", "evaluation", "drawing"))
        plain_step, plain_evaluation = seconds["plain step"], seconds["plain evaluation"]
        gflops = fast.facts["step_gflop"] / step
        peak = fast.facts["matmul_gflop"] / seconds["matmul"]
        values = math.prod(size["image_shape"])
        print(
            f"{name}, on {fast.facts['machine']}\n"
            f"    training    {batch / step:8.1f} images/s, {plain_step / step:.1f}x plain "
            f"({batch / plain_step:.1f}); {gflops:.1f} GFLOP/s, {gflops / peak:.1%} of {peak:.0f}; "
            f"{fast.facts['megabytes']:.0f} MB of temporaries a device "
            f"(plain {slow.facts['megabytes']:.0f})\n"
            f"    evaluation  {batch / evaluation:8.1f} images/s, "
            f"{plain_evaluation / evaluation:.1f}x plain ({batch / plain_evaluation:.1f})\n"
            f"    drawing     {batch / drawing:8.1f} images/s, {drawing:.3f} s a batch; one "
            f"evaluation a value: {values * evaluation:.1f} s "
            f"({values * evaluation / drawing:.0f}x), plain {values * plain_evaluation:.1f} s "
            f"({values * plain_evaluation / drawing:.0f}x)",
            flush=True,
        )


if __name__ == "__main__":
    timing.run(main, build)
