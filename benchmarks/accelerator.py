"""What the paper's sizes reach on this machine's GPU or TPU: training and sampling.

    python benchmarks/accelerator.py                    # cifar10 and imagenet32, every architecture
    python benchmarks/accelerator.py row_lstm           # rows whose name holds this word
    python benchmarks/accelerator.py --layers=1 --features=8 --head_features=8 --batch=2 \
        --matmul=512                                    # small enough for a CPU

For each row: the time of a step, images/s, the share of what large matmuls of the same type reach,
the memory of a device that the temporaries of a step take, the time of one iteration of the
recurrence (forward or backward) beside that of an iteration which only adds one to a small array,
which is the least that a launch costs, and the time to draw a batch. Random images stand in for the
data sets. Run nothing else beside it.
"""

import argparse
import dataclasses

import jax
import jax.numpy as jnp
from training import median_seconds, peak_gflops, prepare, weights_of

import pixel_rnn_jax as prnn
from pixel_rnn_jax import config as config_lib
from pixel_rnn_jax.runtime import devices

CONFIGS = ("cifar10", "imagenet32")
IMAGE_SHAPE, LEVELS = (32, 32, 3), 256
DTYPES = ("float32", "bfloat16")
REPEATS = 5


def launch_seconds() -> float:
    """Returns the time of an iteration of a scan that does next to nothing."""
    steps, small = 1000, jnp.zeros((8, 128))
    scan = jax.jit(lambda x: jax.lax.scan(lambda x, _: (x + 1, None), x, length=steps)[0])
    return median_seconds(lambda: scan(small)) / steps


def iterations(config: prnn.ModelConfig) -> int:
    """Returns the iterations of all scans of a step that follow each other; 0 for PixelCNN."""
    height, width, _ = IMAGE_SHAPE
    lines = {"pixel_cnn": 0, "row_lstm": height, "diagonal_bilstm": 2 * (width + height - 1)}
    return 2 * config.layers * lines[config.architecture]  # Forward and backward.


def row(config: config_lib.Config, peak: float) -> str:
    """Measures one row of the table."""
    model, batch = config.model, config.train.batch_size
    step = prepare(model, IMAGE_SHAPE, LEVELS, batch, devices.mesh_for(batch))
    seconds = median_seconds(step.run, REPEATS)
    gflops = 6 * weights_of(step.params) * IMAGE_SHAPE[0] * IMAGE_SHAPE[1] * batch / seconds / 1e9
    bound = prnn.create(model, IMAGE_SHAPE, LEVELS)
    drawing = median_seconds(lambda: bound.sample(jax.random.key(0), batch), 1)
    count = iterations(model)
    iteration = f"{1e6 * seconds / count:.1f}" if count else "none"
    memory = step.temporaries / 2**30
    return (
        f"{1e3 * seconds:9.1f} {batch / seconds:9.1f} {gflops / peak:8.1%} {memory:7.2f} "
        f"{iteration:>9} {drawing:9.2f}"
    )


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for field in ("layers", "features", "head_features", "batch"):
        parser.add_argument(f"--{field}", type=int, help="default: the config's")
    parser.add_argument("--matmul", type=int, default=8192, help="side of the large matmul")
    parser.add_argument("words", nargs="*", metavar="WORD")
    options = parser.parse_args()
    devices.set_up_host_devices()
    device = jax.devices()[0]
    print(
        f"JAX {jax.__version__}, {jax.device_count()} x {device.device_kind}; an iteration that "
        f"only adds one: {1e6 * launch_seconds():.1f} us\n"
        f"{'':38}  ms/step  images/s  of peak     GiB  us/iter.   s/batch"
    )
    sizes = {"layers": options.layers, "features": options.features}
    sizes["head_features"] = options.head_features
    for dtype in DTYPES:
        peak = peak_gflops(dtype, options.matmul)
        print(f"large {dtype} matmul on all devices: {peak:.0f} GFLOP/s")
        for name in CONFIGS:
            for architecture in config_lib.ARCHITECTURES:
                title = f"{name}:{architecture}, {dtype}"
                if options.words and not any(word in title for word in options.words):
                    continue
                values = config_lib.load_config_dict(f"{name}:{architecture}")
                values.model.update({key: value for key, value in sizes.items() if value})
                values.model.dtype = dtype
                values.train.batch_size = options.batch or values.train.batch_size
                config = config_lib.from_config_dict(values)
                model = dataclasses.replace(config.model, scales=())
                config = dataclasses.replace(config, model=model)
                print(f"{title:38} {row(config, peak)}", flush=True)


if __name__ == "__main__":
    main()
