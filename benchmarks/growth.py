"""How the time of a training step grows with the image, the batch and the depth.

    python benchmarks/growth.py              # every architecture
    python benchmarks/growth.py row_lstm     # those whose name holds this word

One size varies at a time; the others stay at those of `BASE`. The slope is that of the logarithms
between two sizes next to each other: 1 is a time in proportion to the pixels, images or layers.
Below 1, fixed costs and idle lanes of the matmuls are filled; above 1 something grows faster than
the work. Run nothing else beside it.
"""

import math
import subprocess
import sys

import jax
from training import median_seconds, prepare

from pixel_rnn_jax.config import ARCHITECTURES, ModelConfig
from pixel_rnn_jax.runtime import devices

BASE = {"side": 16, "batch": 16, "layers": 2}
SWEEPS = {"side": (8, 16, 32, 64), "batch": (1, 4, 16, 64, 256), "layers": (1, 2, 4, 8, 12)}
REPEATS = 7


def measure(architecture: str, side: int, batch: int, layers: int) -> float:
    """Returns the seconds of a step in this process, with h=16."""
    config = ModelConfig(architecture, layers=layers)
    return median_seconds(
        prepare(config, (side, side, 1), 2, batch, devices.mesh_for(batch)).run, REPEATS
    )


def in_new_process(architecture: str, sizes: dict[str, int]) -> float:
    """Measures in a new process, as the command line would set it up."""
    words = [architecture, *map(str, sizes.values())]
    command = [sys.executable, __file__, "--measure", *words]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    """Prints the tables."""
    if sys.argv[1:2] == ["--measure"]:
        devices.set_up_host_devices()
        print(measure(sys.argv[2], *map(int, sys.argv[3:])))
        return
    words = sys.argv[1:]
    print(f"JAX {jax.__version__}; h=16, {BASE} but for the size that varies")
    for architecture in ARCHITECTURES:
        if words and not any(word in architecture for word in words):
            continue
        for varied, values in SWEEPS.items():
            before = None
            for value in values:
                sizes = BASE | {varied: value}
                seconds = in_new_process(architecture, sizes)
                amount = value**2 if varied == "side" else value
                slope = ""
                if before:
                    growth = math.log(seconds / before[1]) / math.log(amount / before[0])
                    slope = f"  slope {growth:.2f}"
                before = amount, seconds
                print(
                    f"{architecture:16} {varied:6} {value:4} {1e3 * seconds:9.2f} ms a step "
                    f"{1e3 * seconds / sizes['batch']:8.3f} ms an image{slope}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
