"""Trains wave functions of this package and of NetKet, and compares their energies in equal time.

    python benchmarks/wave_functions.py
    python benchmarks/wave_functions.py --seconds=30 4 6

The numbers are sides of the torus of spins, whose Hamiltonian is the transverse-field Ising model,
h = 3, close to its critical point. Each network is a process of its own, with all cores and float32
parameters, trained by Adam with the best of the rates 0.003, 0.01 and 0.03 for it at 4x4. The time
to compile is left out. The energy is the mean over the last tenth of the steps. Its error is the
root of (the variance of the last step / the samples of that tenth). Run nothing else beside it.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import timing
from timing import Candidate, Worker

SAMPLES = {4: 256, 6: 256, 10: 64}
"""A step's, by the side."""


def ours(hilbert: Any, side: int, name: str, layers: int, kernel: int = 7) -> Any:
    """Returns a model of this package and its sampler."""
    import pixel_rnn_jax as prnn
    from pixel_rnn_jax.wave_function import DirectSampler, WaveFunction

    config = prnn.ModelConfig(name, layers, 16, kernel, head_features=16)
    return WaveFunction(hilbert, config, (side, side)), DirectSampler(hilbert)


def netkets(hilbert: Any, side: int, name: str, **options: Any) -> Any:
    """Returns a network of NetKet and its sampler."""
    import netket as nk
    import netket.experimental as nkx

    home = nk.models if hasattr(nk.models, name) else nkx.models
    if name == "FastLSTMNet":  # Each site is given its neighbours on the lattice.
        options["graph"] = nk.graph.Grid([side, side], pbc=False)
    model = getattr(home, name)(hilbert, param_dtype="float32", **options)
    return model, nk.sampler.ARDirectSampler(hilbert)


WIDE = {"layers": 2, "features": 32}
# What builds the model and its sampler, its arguments, and its rate.
CANDIDATES: dict[str, tuple[Callable[..., Any], dict[str, Any], float]] = {
    "Diagonal BiLSTM 2x16": (ours, {"name": "diagonal_bilstm", "layers": 2}, 1e-2),
    "Linear RNN 1x16, 9x9": (ours, {"name": "linear_rnn", "layers": 1, "kernel": 9}, 1e-2),
    "PixelCNN 4x16": (ours, {"name": "pixel_cnn", "layers": 4}, 1e-2),
    "FastARNNConv2D 4x16": (
        netkets,
        {"name": "FastARNNConv2D", "layers": 4, "features": 16, "kernel_size": (3, 5)},
        3e-3,
    ),
    "FastLSTMNet 2x32": (netkets, {"name": "FastLSTMNet", **WIDE}, 3e-2),
    "FastGRUNet1D 2x32": (netkets, {"name": "FastGRUNet1D", **WIDE}, 3e-2),
}


def build(*, name: str, side: int, seconds: float) -> Candidate:
    """Builds one network, which the timer of a step trains for so many seconds."""
    import jax
    import netket as nk
    import numpy as np
    import optax

    hilbert = nk.hilbert.Spin(0.5, side * side)
    hamiltonian = nk.operator.Ising(hilbert, nk.graph.Grid([side, side], pbc=True), h=3.0)
    network, arguments, rate = CANDIDATES[name]
    model, sampler = network(hilbert, side, **arguments)
    state = nk.vqs.MCState(sampler, model, n_samples=SAMPLES[side], seed=0)
    driver = nk.driver.VMC(hamiltonian, optax.adam(rate), variational_state=state)
    energies: list[float] = []

    def step() -> None:
        driver.run(1, show_progress=False)
        jax.block_until_ready(state.parameters)
        energies.append(float(driver.energy.mean.real))

    step()  # Compiles.
    times: list[float] = []

    def train() -> float:
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            step()
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    def last() -> list[float]:
        return energies[-(len(energies) // 10 or 1) :]

    timers = {
        "step": train,
        "energy": lambda: float(np.mean(last())),
        "error": lambda: float(np.sqrt(driver.energy.variance / SAMPLES[side] / len(last()))),
    }
    if side == 4:
        timers["exact"] = lambda: float(nk.exact.lanczos_ed(hamiltonian)[0])
    versions = f"NetKet {nk.__version__}, JAX {jax.__version__}"
    return Candidate(timers, {"parameters": state.n_parameters, "versions": versions})


def main(arguments: list[str] | None = None) -> None:
    """Prints the table."""
    flags = timing.parser(__doc__)
    flags.add_argument("--seconds", type=float, default=40.0, help="of training; default: 40")
    flags.add_argument("sides", nargs="*", type=int, metavar="SIDE", help="4, 6 or 10")
    options = flags.parse_args(arguments)
    if wrong := set(options.sides) - set(SAMPLES):
        flags.error(f"SIDE must be one of {[*SAMPLES]}, got {wrong}")
    for side in options.sides or SAMPLES:
        print(f"{side}x{side}, {SAMPLES[side]} samples a step", flush=True)
        for name in CANDIDATES:
            with Worker(__file__, name=name, side=side, seconds=options.seconds) as worker:
                step, energy, error, *exact = (measure() for measure in worker.timers.values())
            print(
                f"{name:22}{worker.facts['parameters']:8,} parameters {step:8.3f} s a step  "
                f"{energy / side**2:.5f} ± {error / side**2:.5f} per spin"
                + "".join(f", exact {value / side**2:.5f}" for value in exact),
                flush=True,
            )
    print(worker.facts["versions"])


if __name__ == "__main__":
    timing.run(main, build)
