"""Times training steps on more and more CPU devices, of one process and of several.

    python benchmarks/weak_scaling.py              # every size below
    python benchmarks/weak_scaling.py pixel_cnn    # those whose name holds this word

Each device has a batch of its own, so that with perfect scaling a step takes as long on two devices
as on one. Two processes (gloo between them) are measured against two devices of one process, and
both against one device that is kept to one core, in turns within one run. Run nothing else beside
it.
"""

import json
import os
import socket
import subprocess
import sys
import time

import jax
import numpy as np
from training import prepare

from pixel_rnn_jax.config import ModelConfig
from pixel_rnn_jax.runtime import devices, processes

BATCH = 8
"""Images of a device."""
SHAPE, LEVELS = (28, 28, 1), 2
SIZES = ("pixel_cnn", "row_lstm", "diagonal_bilstm")
"""Architectures, of 7 layers and h=16."""
ARRANGEMENTS = ((1, 1), (1, 2), (2, 1))
"""(processes, devices of each)."""
ROUNDS, STEPS = 2, 20


def measure(architecture: str) -> list[float]:
    """Returns the seconds of some steps of the whole run that this process belongs to."""
    rows = BATCH * jax.local_device_count()
    step = prepare(ModelConfig(architecture), SHAPE, LEVELS, rows, devices.make_mesh())
    seconds = []
    for _ in range(STEPS + 2):  # The first two warm it up.
        start = time.perf_counter()
        jax.block_until_ready(step.run())
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def in_new_processes(architecture: str, count: int, own: int) -> list[float]:
    """Returns what the first of so many processes, each with its own devices, has measured."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
    command = [sys.executable, __file__, "--measure", architecture, coordinator]
    running = [
        subprocess.Popen(
            [*command, str(count), str(index)],
            stdout=subprocess.PIPE if index == 0 else subprocess.DEVNULL,
            env=os.environ | {"JAX_NUM_CPU_DEVICES": str(own)},
            text=True,
        )
        for index in range(count)
    ]
    outputs = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(f"{architecture}: a process has failed")
    return [float(x) for x in json.loads(outputs[0].splitlines()[-1])]


def main() -> None:
    """Prints the table."""
    if sys.argv[1:2] == ["--measure"]:
        name, coordinator, count, index = sys.argv[2:]
        if count == "1" and os.environ["JAX_NUM_CPU_DEVICES"] == "1":
            # Alone, it would have the other cores for large matmuls (see `set_up_host_devices`).
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        devices.set_up_host_devices()
        if count != "1":
            processes.join(coordinator, int(count), int(index))
        print(json.dumps(measure(name)))
        return
    words = sys.argv[1:]
    print(f"{BATCH} images a device, {os.cpu_count()} cores, medians of {ROUNDS * STEPS} steps")
    for architecture in SIZES:
        if words and not any(word in architecture for word in words):
            continue
        seconds: dict[tuple[int, int], list[float]] = {each: [] for each in ARRANGEMENTS}
        for _ in range(ROUNDS):
            for each in ARRANGEMENTS:
                seconds[each] += in_new_processes(architecture, *each)
        medians = {each: float(np.median(times)) for each, times in seconds.items()}
        print(f"{architecture}, 7 layers, h=16, 28x28x1")
        for (running, own), median in medians.items():
            total = running * own
            print(
                f"    {running} x {own}: {median * 1e3:6.1f} ms a step, "
                f"{BATCH * total / median:5.0f} images/s, "
                f"{medians[1, 1] / median:4.0%} of perfect scaling, "
                f"{medians[1, 2] * total / (2 * median):5.2f}x one process of two devices",
                flush=True,
            )


if __name__ == "__main__":
    main()
