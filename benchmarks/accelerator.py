"""What the paper's sizes reach on this machine's GPU or TPU: training and sampling.

    python benchmarks/accelerator.py                    # cifar10 and imagenet32, every architecture
    python benchmarks/accelerator.py row_lstm           # rows whose name holds this word
    python benchmarks/accelerator.py --layers=1 --features=8 --head_features=8 --batch=2 \
        --matmul=512                                    # small enough for a CPU

Each row has the time of a step, images/s, the share of what large matmuls of the same type reach,
the memory of a step's temporaries on a device, the time of one iteration of the recurrence (forward
or backward), the time of an iteration that only adds one to a small array (the least that a launch
costs), and the time to draw a batch. Times are medians; all are timed in turn. Random images stand
in for the data sets. Run nothing else beside it.
"""

from typing import Any

import jax
import jax.numpy as jnp
import timing
from speed import chosen, matmul, parser, prepare, weights_of
from timing import in_turn, timer

import pixel_rnn_jax as prnn
from pixel_rnn_jax.model.layers import BODIES
from pixel_rnn_jax.runs.config import load_config
from pixel_rnn_jax.system import devices

CONFIGS, DTYPES = ("cifar10", "imagenet32"), ("float32", "bfloat16")
LEVELS = 256
SMALL_ITERATIONS = 1000


@jax.jit
def small_scan(x: jax.Array) -> jax.Array:
    """Runs iterations that do next to nothing."""
    return jax.lax.scan(lambda x, _: (x + 1, None), x, length=SMALL_ITERATIONS)[0]


def iterations(jaxpr: Any) -> int:
    """Returns the iterations of all scans in a program, forward and backward; 0 for PixelCNN."""
    count = 0
    for equation in jaxpr.eqns:
        parts = jax.tree.leaves([*equation.params.values()])
        inner = sum(iterations(part) for part in parts if hasattr(part, "eqns"))
        is_scan = equation.primitive.name == "scan"
        count += equation.params["length"] * max(inner, 1) if is_scan else inner
    return count


def row(size: dict[str, Any], matmul_side: int, seconds: float, rounds: int) -> str:
    """Measures one row of the table."""
    shape, batch = size.pop("image_shape"), size.pop("batch")
    config = prnn.ModelConfig(**size)
    model, zeros = prnn.create(config, shape, LEVELS), jnp.zeros((8, 128))
    step = prepare(model.pixel_rnn, batch, devices.mesh_for(batch))
    square, gflop = matmul(config.dtype, matmul_side)

    def draw() -> None:
        jax.block_until_ready(model.sample(jax.random.key(0), batch))

    times = in_turn(
        {
            "step": timer(step.run, seconds),
            "matmul": timer(square, seconds),
            "small": timer(lambda: jax.block_until_ready(small_scan(zeros)), seconds),
            "drawing": timer(draw, 0, warm_up=1),
        },
        rounds,
    )
    gflops = 6 * weights_of(step.params) * shape[0] * shape[1] * batch / times["step"] / 1e9
    count = iterations(step.jaxpr)
    iteration = f"{1e6 * times['step'] / count:.1f}" if count else "none"
    return (
        f"{1e3 * times['step']:9.1f} {batch / times['step']:9.1f} "
        f"{gflops * times['matmul'] / gflop:8.1%} {step.temporaries / 2**30:7.2f} "
        f"{iteration:>9} {1e6 * times['small'] / SMALL_ITERATIONS:7.1f} {times['drawing']:9.2f}"
    )


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    flags = parser(__doc__)
    flags.add_argument("--matmul", type=int, default=8192, help="side; default: %(default)s")
    options = flags.parse_args(arguments)
    devices.set_up_host_devices()
    print(
        f"on {timing.machine()}\n"
        f"{'':38}  ms/step  images/s  of peak     GiB  us/iter.   small   s/batch"
    )
    sizes = {}
    for dtype in DTYPES:
        for name in CONFIGS:
            for architecture in BODIES:
                title = f"{name}:{architecture}, {dtype}"
                config = load_config(f"{name}:{architecture}")
                fields = vars(config.model) | {"scales": (), "dtype": dtype}
                batch = options.batch or config.train.batch_size
                sizes[title] = fields | {"image_shape": (32, 32, 3), "batch": batch}
    for title, size in chosen(sizes, options).items():
        measured = row(size, options.matmul, options.seconds, options.rounds)
        print(f"{title:38} {measured}", flush=True)


if __name__ == "__main__":
    main()
